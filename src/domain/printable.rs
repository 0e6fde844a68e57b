//! Texts from outside, made safe to print. A name that holds an escape sequence or a line break must not move the
//! cursor, change colours, or forge a second line.

use std::borrow::Cow;

/// The text on one line: line breaks and whatever cannot be seen are escaped, as in `\n` and `\u{1b}`.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_visible)
}

/// The text with its line breaks and tabs: whatever else cannot be seen is escaped.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |char| char == '\n' || char == '\t' || is_visible(char))
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(|char| !is_kept(char)) else { return Cow::Borrowed(text) };
    let (kept, rest) = text.split_at(first);
    let mut shown = kept.to_owned();
    for char in rest.chars() {
        if is_kept(char) {
            shown.push(char);
        } else {
            shown.extend(char.escape_debug());
        }
    }
    Cow::Owned(shown)
}

/// Whether a character takes its own place and does nothing else. Marks that join the letter before them do.
fn is_visible(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_graphic() || char == ' ';
    }
    // Alone, `escape_debug` escapes joining marks too, which some scripts cannot be read without.
    let after_letter: String = ['a', char].into_iter().collect();
    after_letter.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_hides_is_escaped() {
        for (text, shown) in [
            ("till-7", "till-7"),
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\0"),
            ("\u{7f}\u{9b}2J", "\\u{7f}\\u{9b}2J"),
            // Right-to-left override, zero width space, line separator
            ("a\u{202e}b\u{200b}c\u{2028}d", "a\\u{202e}b\\u{200b}c\\u{2028}d"),
            ("C:\\new \"x\" 'y'", "C:\\new \"x\" 'y'"),
            ("Zürich, 東京, किताब", "Zürich, 東京, किताब"),
        ] {
            assert_eq!(line(text), shown);
        }
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("a\n\u{1b}[2J\tb\n"), "a\n\\u{1b}[2J\tb\n");
        assert!(matches!(lines("a\nb\n"), Cow::Borrowed(_)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_printed_is_a_control_character(text: String) {
            proptest::prop_assert!(!line(&text).chars().any(char::is_control));
            proptest::prop_assert!(!lines(&text).chars().any(|char| char.is_control() && char != '\n' && char != '\t'));
        }
    }
}
