//! Where a network address is, by several databases in MaxMind's format that agree.
//!
//! One database alone is wrong for about one network in ten, mostly where addresses are rented out across borders; two
//! that were made independently are seldom wrong in the same way. None comes with bailiwick. An address that means another
//! host elsewhere (private, shared, link-local, reserved) is nowhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;
use maxminddb::{MaxMindDbError, Metadata, PathElement, Reader, WithinOptions};

use crate::domain::jurisdiction::Jurisdiction;
use crate::domain::knowledge::{Addresses, Candidates, Reading};
use crate::files::{self, Fingerprint};

#[cfg(test)]
mod tests;

/// The largest database, in bytes.
pub const BYTES_MAX: u64 = 512 << 20;
/// The fewest databases that have to agree.
pub const AGREE_MIN: usize = 2;

/// So many networks of a database are looked at to see whether it has countries.
const LOOKED_AT: usize = 10_000;

/// What stands before a database's description.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// Where databases have the code of the country: MaxMind's layout, and those of others.
const LAYOUTS: &[&[PathElement<'static>]] =
    &[&[PathElement::Key("country"), PathElement::Key("iso_code")], &[PathElement::Key("country_code")]];

/// Why the databases were not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file was not read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file is damaged, or something else.
    #[error("`{}` is no database of networks, or is damaged or cut off; fetch it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MaxMindDbError,
    },
    /// A database of something else.
    #[error(
        "`{}` has no countries: neither `country.iso_code` nor `country_code` in its entries; use a database of countries",
        .0.display()
    )]
    NoCountries(PathBuf),
    /// One database cannot agree with itself.
    #[error("{agree} databases have to agree on a country and {count} are there; at least {AGREE_MIN} have to")]
    TooFew {
        /// How many have to agree.
        agree: usize,
        /// How many there are.
        count: usize,
    },
    /// The same content twice agrees with itself.
    #[error("`{}` and `{}` are the same; use databases that were made independently", .0.display(), .1.display())]
    Same(PathBuf, PathBuf),
}

/// Databases, of which `agree` have to agree.
pub struct Databases {
    readers: Vec<Reader<Vec<u8>>>,
    agree: usize,
    countries: HashMap<Jurisdiction, Candidates, RandomState>,
}

impl Databases {
    /// Reads and verifies the databases.
    ///
    /// # Errors
    /// When a file cannot be read or is not whole, or there are fewer than have to agree.
    pub fn load(paths: &[PathBuf], agree: usize) -> Result<(Self, Vec<Fingerprint>), Error> {
        if agree < AGREE_MIN || paths.len() < agree {
            return Err(Error::TooFew { agree, count: paths.len() });
        }
        let mut readers: Vec<Reader<Vec<u8>>> = Vec::new();
        let mut fingerprints = Vec::new();
        let mut contents: Vec<(u64, u64)> = Vec::new();
        for path in paths {
            let (bytes, fingerprint) = files::read(path, BYTES_MAX)?;
            let content = (bytes.len() as u64, hash(&bytes));
            if let Some(other) = contents.iter().position(|known| *known == content).and_then(|at| paths.get(at)) {
                return Err(Error::Same(other.clone(), path.clone()));
            }
            contents.push(content);
            readers.push(open(path, bytes)?);
            fingerprints.push(fingerprint);
        }
        let countries = Jurisdiction::all().filter(|code| code.country() == *code);
        let countries = countries.map(|code| (code, Arc::from([code]))).collect();
        Ok((Self { readers, agree, countries }, fingerprints))
    }
}

impl Addresses for Databases {
    fn locate(&self, address: IpAddr) -> Reading {
        let address = address.to_canonical();
        if !is_public(address) {
            return Reading::Absent;
        }
        let said = || self.readers.iter().filter_map(|reader| country(reader, address));
        // The country that enough of them name. Two of which that is so contradict each other.
        let mut agreed = None;
        for country in said() {
            if said().filter(|other| *other == country).count() >= self.agree {
                if agreed.is_some_and(|agreed| agreed != country) {
                    return Reading::Absent;
                }
                agreed = Some(country);
            }
        }
        let candidates = agreed.and_then(|country| self.countries.get(&country));
        candidates.map_or(Reading::Absent, |candidates| Reading::Codes(Arc::clone(candidates)))
    }
}

fn open(path: &Path, bytes: Vec<u8>) -> Result<Reader<Vec<u8>>, Error> {
    let damaged = |source| Error::Damaged { path: path.to_owned(), source };
    let metadata = Reader::from_source(bytes.as_slice()).map_err(damaged)?.metadata().clone();
    let is_described = !metadata.description.is_empty() && !metadata.database_type.is_empty();
    let bytes = if is_described { bytes } else { described(bytes, &metadata) };
    let reader = Reader::from_source(bytes).map_err(damaged)?;
    reader.verify().map_err(damaged)?;
    for network in reader.networks(WithinOptions::default()).map_err(damaged)?.take(LOOKED_AT) {
        if code_of(&network.map_err(damaged)?).is_some() {
            return Ok(reader);
        }
    }
    Err(Error::NoCountries(path.to_owned()))
}

/// The same database with another description. Some have none, which the verification, but no lookup, takes for damage.
fn described(mut bytes: Vec<u8>, metadata: &Metadata) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(0x40 | text.len() as u8);
        out.extend(text.as_bytes());
    }
    let end = bytes.windows(MARKER.len()).rposition(|window| window == MARKER).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes.extend(MARKER);
    // A map of nine entries.
    bytes.push(0xe9);
    for (name, number) in [
        ("binary_format_major_version", metadata.binary_format_major_version),
        ("binary_format_minor_version", metadata.binary_format_minor_version),
        ("ip_version", metadata.ip_version),
        ("record_size", metadata.record_size),
    ] {
        text(&mut bytes, name);
        bytes.push(0xa2);
        bytes.extend(number.to_be_bytes());
    }
    text(&mut bytes, "node_count");
    bytes.push(0xc4);
    bytes.extend(metadata.node_count.to_be_bytes());
    text(&mut bytes, "build_epoch");
    bytes.extend([0x08, 0x02]);
    bytes.extend(metadata.build_epoch.to_be_bytes());
    text(&mut bytes, "database_type");
    text(&mut bytes, "unnamed");
    text(&mut bytes, "description");
    bytes.push(0xe1);
    text(&mut bytes, "en");
    text(&mut bytes, "unnamed");
    text(&mut bytes, "languages");
    bytes.extend([0x00, 0x04]);
    bytes
}

/// The country that a database names. What it says of no country, or in another way, is nothing.
fn country(reader: &Reader<Vec<u8>>, address: IpAddr) -> Option<Jurisdiction> {
    code_of(&reader.lookup(address).ok()?)
}

fn code_of(found: &maxminddb::LookupResult<'_, Vec<u8>>) -> Option<Jurisdiction> {
    let code = LAYOUTS.iter().find_map(|path| found.decode_path::<&str>(path).ok().flatten())?;
    Jurisdiction::parse(code).filter(|code| *code != Jurisdiction::UNKNOWN && code.country() == *code)
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Whether an address means the same host everywhere.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    // This network; shared between provider and customer; protocols; measurements; the future.
    let is_reserved = matches!(
        address.octets(),
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..]
    );
    !(is_reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only 2000::/3 is given out, of which these are for documents.
    match address.segments() {
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}
