//! The two checksums: SHA-256 of a bundle's files, and XXH3-64 of each block of weights and of checkpoints.

use sha2::Digest;
use xxhash_rust::xxh3::xxh3_64;

/// SHA-256 (FIPS 180-4) of bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes, 64 hexadecimal digits in lower case.
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// SHA-256 of `bytes`, 64 hexadecimal digits in lower case.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Sha256::default();
    hash.update(bytes);
    hash.finish()
}

/// Whether `text` is a SHA-256 as [`sha256`] writes it, in upper or lower case.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// XXH3-64 (seed 0) of `bytes`: a block of weights, or a checkpoint.
pub fn xxh3(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A block's checksum from its 16 hexadecimal digits.
pub(crate) fn parse_block_checksum(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_standards() {
        // FIPS 180-4's example "abc", and XXH3-64 of nothing as its specification has it.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
        assert!(is_sha256(abc) && !is_sha256(&abc[1..]) && !is_sha256(&abc.replace('b', "g")));
        assert_eq!(xxh3(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn a_block_checksum_is_sixteen_digits() {
        assert_eq!(parse_block_checksum("00000000000000ff"), Some(255));
        for wrong in ["ff", "+0000000000000ff", "00000000000000fg", "000000000000000ff", ""] {
            assert_eq!(parse_block_checksum(wrong), None, "{wrong}");
        }
    }
}
