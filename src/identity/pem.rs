//! What is wrong with a PEM file, in words that hold nothing of it.

use rustls::pki_types::pem;

/// What is wrong with a file that should be PEM. The error's own text has parts of the file in it, which may be a key.
pub(super) fn fault_of(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "there is nothing of this kind in it",
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "a section does not begin and end on lines of its own; perhaps its line breaks are lost"
        }
        pem::Error::Base64Decode(_) => "what stands between -----BEGIN and -----END is no base64",
        _ => "it cannot be read",
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn nothing_of_a_file_is_in_what_is_said_of_it() {
        let secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
        for text in [
            format!("-----BEGIN PRIVATE KEY-----\\n{secret}\\n-----END PRIVATE KEY-----"),
            format!("-----BEGIN PRIVATE KEY-----{secret}-----END PRIVATE KEY-----\n"),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}\n"),
            format!("-----BEGIN PRIVATE KEY-----\n!{secret}\n-----END PRIVATE KEY-----\n"),
            secret.to_owned(),
        ] {
            let Err(error) = PrivateKeyDer::from_pem_slice(text.as_bytes()) else { panic!("{text}") };
            let said = fault_of(&error);
            let parts: Vec<String> = secret.as_bytes()[..4].iter().map(ToString::to_string).collect();
            assert!(!said.contains(&secret[..4]) && !said.contains(&parts.join(", ")), "{said}");
        }
    }
}
