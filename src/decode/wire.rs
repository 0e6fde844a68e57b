//! The protobuf wire format, read without messages: each function takes something from the front of some bytes and
//! gives back the rest. `None`: the bytes are not protobuf.

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
pub(super) const FIXED32: u8 = 5;

/// How deep groups may lie in each other, as in other readers of protobuf.
const DEPTH_MAX: usize = 100;

/// A field number and a wire type.
pub(super) fn tag(rest: &[u8]) -> Option<((u32, u8), &[u8])> {
    let (tag, rest) = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
    Some(((number, (tag & 7) as u8), rest))
}

pub(super) fn varint(rest: &[u8]) -> Option<(u64, &[u8])> {
    match rest {
        [first, rest @ ..] if *first < 0x80 => Some((u64::from(*first), rest)),
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            // The tenth byte holds one bit.
            return (index < 9 || byte < 2).then_some((value, rest.get(index + 1..)?));
        }
    }
    None
}

pub(super) fn bytes(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = varint(rest)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

pub(super) fn array<const N: usize>(rest: &[u8]) -> Option<([u8; N], &[u8])> {
    rest.split_first_chunk().map(|(array, rest)| (*array, rest))
}

/// Skips the value of a field that is not known. A group ends with the end tag of its own number.
pub(super) fn skip(tag: (u32, u8), rest: &[u8]) -> Option<&[u8]> {
    if tag.1 == GROUP { skip_group(tag.0, rest) } else { skip_value(tag.1, rest) }
}

fn skip_value(wire: u8, rest: &[u8]) -> Option<&[u8]> {
    match wire {
        VARINT => varint(rest).map(|(_, rest)| rest),
        FIXED64 => array::<8>(rest).map(|(_, rest)| rest),
        BYTES => bytes(rest).map(|(_, rest)| rest),
        FIXED32 => array::<4>(rest).map(|(_, rest)| rest),
        _ => None,
    }
}

#[cold]
fn skip_group(number: u32, mut rest: &[u8]) -> Option<&[u8]> {
    let mut open = vec![number];
    while let Some(&innermost) = open.last() {
        let ((number, wire), after) = tag(rest)?;
        rest = after;
        match wire {
            GROUP if open.len() < DEPTH_MAX => open.push(number),
            GROUP_END if number == innermost => drop(open.pop()),
            GROUP | GROUP_END => return None,
            _ => rest = skip_value(wire, rest)?,
        }
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_skipped_to_the_end_tag_of_its_own_number() {
        // Group 9 { field 1: varint 300; group 2 { } ; field 3: "ab" }, then 0x2a.
        let inner = [0x08, 0xac, 0x02, 0x13, 0x14, 0x1a, 2, b'a', b'b', 0x4c, 0x2a];
        assert_eq!(skip((9, GROUP), &inner), Some([0x2a].as_slice()));
        // The end of another group, no end, the end of what was never begun.
        assert_eq!(skip((9, GROUP), &[0x14]), None);
        assert_eq!(skip((9, GROUP), &[0x08, 1]), None);
        assert_eq!(skip((9, GROUP_END), &[0x08, 1]), None);
    }

    #[test]
    fn groups_in_groups_have_an_end() {
        let nested = |depth: usize| [vec![0x0b; depth - 1], vec![0x0c; depth]].concat();
        assert_eq!(skip((1, GROUP), &nested(DEPTH_MAX)), Some([].as_slice()));
        assert_eq!(skip((1, GROUP), &nested(DEPTH_MAX + 1)), None);
    }
}
