//! Quotes of comma-separated text that stand where they may not. Readers of CSV guess what is meant by them, and a guess
//! makes one record of two.

/// What is wrong with the quotes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misquoted {
    /// `a"b`: a quote within a value that does not begin with one.
    #[error(
        "a quote stands within a value that does not begin with one: put the value in quotes, and write its own twice"
    )]
    Within,
    /// `"a"b`: something follows the quote that ends a value.
    #[error(
        "something other than a comma follows a closing quote: a quote within a value is written twice, and one may be \
         missing in this row or too many"
    )]
    After,
    /// `"a`: the value does not end.
    #[error("a quote is not closed: all that follows in the file is in it")]
    Open,
}

/// Looks at the bytes of one row, with or without the end of its line, as its reader has cut it out.
///
/// # Errors
/// The first quote that stands where it may not.
pub fn check(row: &[u8]) -> Result<(), Misquoted> {
    enum At {
        Begin,
        Plain,
        Quoted,
        Closed,
    }
    let mut at = At::Begin;
    for byte in row {
        at = match (at, byte) {
            (At::Begin, b'"') | (At::Closed, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Closed,
            (At::Quoted, _) => At::Quoted,
            (At::Begin | At::Plain | At::Closed, b',' | b'\r' | b'\n') => At::Begin,
            (At::Plain, b'"') => return Err(Misquoted::Within),
            (At::Closed, _) => return Err(Misquoted::After),
            (At::Begin | At::Plain, _) => At::Plain,
        };
    }
    match at {
        At::Quoted => Err(Misquoted::Open),
        At::Begin | At::Plain | At::Closed => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_stand_around_values_and_twice_within_them() {
        for row in ["", "a,b\n", "\"a\",b\r\n", "\"\",\"\"\"\",\"a\"\"b\"", "\n\n\"a,\nb\",c\n", ",,"] {
            assert_eq!(check(row.as_bytes()), Ok(()), "{row:?}");
        }
        for (row, wrong) in [
            ("T,\"u1,DE,click,1\nT,\"u2,DE,click,2\n", Misquoted::After),
            ("T,\"u1\"x,DE\n", Misquoted::After),
            ("\"a\" ,b\n", Misquoted::After),
            ("a\"b,c\n", Misquoted::Within),
            ("a, \"b\"\n", Misquoted::Within),
            ("a,\"b\nc,d\n", Misquoted::Open),
            ("\"", Misquoted::Open),
            ("\"\"\"", Misquoted::Open),
        ] {
            assert_eq!(check(row.as_bytes()), Err(wrong), "{row:?}");
        }
    }

    proptest::proptest! {
        /// What a strict writer writes is right, and read as it was written.
        #[test]
        fn what_is_written_rightly_is_right(rows in proptest::collection::vec(proptest::collection::vec("[ab,\"\n\r]{0,6}", 2), 1..5)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            proptest::prop_assert_eq!(check(&writer.into_inner().unwrap()), Ok(()));
        }
    }
}
