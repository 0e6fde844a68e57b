//! Numbers, texts and byte strings one after the other: what checkpoints and the entries of the journal and
//! the outbox are made of. Little-endian; texts and byte strings follow their length.
//!
//! Versions and checksums are the container's.

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes under construction.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing yet, with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// Adds a byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Adds a number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number.
    pub fn i128(&mut self, value: i128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number.
    pub fn u128(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Adds a number, as its bits.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.u64(value.to_bits())
    }

    /// Adds a number that may be missing.
    pub fn option(&mut self, value: Option<i64>) -> &mut Self {
        self.u8(value.is_some().into()).i64(value.unwrap_or(0))
    }

    /// Adds how many things follow.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.u64(count as u64)
    }

    /// Adds bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).raw(bytes)
    }

    /// Adds bytes without their length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds a text and its length.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a number in as few bytes as it takes: seven bits each, the least significant ones first (LEB128).
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.u8((value & 0x7f) as u8)
    }

    /// Adds bytes and their length, which is written as a [`Self::varint`].
    pub fn short_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// Adds a text and its length, which is written as a [`Self::varint`].
    pub fn short_text(&mut self, text: &str) -> &mut Self {
        self.short_bytes(text.as_bytes())
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads what a [`Writer`] wrote. Every method gives `None` when the bytes are too short or no such thing.
pub struct Reader<'r> {
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    /// Reads from the start.
    #[must_use]
    pub fn new(bytes: &'r [u8]) -> Self {
        Self { rest: bytes }
    }

    /// A byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A number.
    pub fn i128(&mut self) -> Option<i128> {
        self.array().map(i128::from_le_bytes)
    }

    /// A number.
    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// A number.
    pub fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    /// A number that may be missing.
    pub fn option(&mut self) -> Option<Option<i64>> {
        let present = self.u8()?;
        let value = self.i64()?;
        Some((present != 0).then_some(value))
    }

    /// How many things follow, each of at least `each` bytes: a count that the rest cannot hold is refused.
    pub fn count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count <= self.rest.len() / each.max(1)).then_some(count)
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Option<&'r [u8]> {
        let length = self.count(1)?;
        self.raw(length)
    }

    /// So many bytes.
    pub fn raw(&mut self, length: usize) -> Option<&'r [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// A text.
    pub fn text(&mut self) -> Option<&'r str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A number that [`Writer::varint`] wrote.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The same, where it fits into 32 bits.
    pub fn varint32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// As [`Self::count`], of a number that [`Writer::varint`] wrote.
    pub fn short_count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.rest.len() / each.max(1)).then_some(count)
    }

    /// Bytes that [`Writer::short_bytes`] wrote.
    pub fn short_bytes(&mut self) -> Option<&'r [u8]> {
        let length = self.short_count(1)?;
        self.raw(length)
    }

    /// A text that [`Writer::short_text`] wrote.
    pub fn short_text(&mut self) -> Option<&'r str> {
        std::str::from_utf8(self.short_bytes()?).ok()
    }

    /// An array of bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'r [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_cut_is_noticed() {
        let mut writer = Writer::default();
        writer.u8(1).u32(2).u64(3).i64(-4).i128(-5).u128(6).option(None).option(Some(7)).text("eight").bytes(&[9]);
        let bytes = writer.finish();
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let numbers = (reader.u8()?, reader.u32()?, reader.u64()?, reader.i64()?, reader.i128()?, reader.u128()?);
            let rest = (reader.option()?, reader.option()?, reader.text()?.to_owned(), reader.bytes()?.to_vec());
            reader.is_empty().then_some((numbers, rest))
        };
        let all = ((1, 2, 3, -4, -5, 6), (None, Some(7), "eight".to_owned(), vec![9]));
        assert_eq!(read(&bytes), Some(all));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn small_numbers_take_few_bytes_and_every_number_comes_back() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, u64::MAX >> shift] {
                let mut writer = Writer::default();
                writer.varint(value);
                let bytes = writer.finish();
                assert_eq!(bytes.len(), (64 - value.leading_zeros()).div_ceil(7).max(1) as usize);
                assert_eq!(Reader::new(&bytes).varint(), Some(value));
                assert_eq!(Reader::new(&bytes[..bytes.len() - 1]).varint(), None);
            }
        }
        assert_eq!(Reader::new(&[0xff; 10]).varint(), None, "more than 64 bits");
        let mut writer = Writer::default();
        writer.short_text("text").short_bytes(&[1; 200]);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.short_text(), reader.short_bytes()), (Some("text"), Some(&[1; 200][..])));
    }

    #[test]
    fn a_count_that_cannot_be_is_refused() {
        let mut writer = Writer::default();
        writer.count(usize::MAX).raw(&[0; 32]);
        let bytes = writer.finish();
        assert_eq!(Reader::new(&bytes).count(16), None);
        assert_eq!(Reader::new(&bytes).bytes(), None);
    }
}
