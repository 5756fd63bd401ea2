//! Digests of values that are already in memory. Streams are hashed where they flow (`snapshot/codec.rs`).
//!
//! All but SHA-256 are here because migration tools record them: they find accidents, not attacks.

use std::hash::Hasher;

use sha2::{Digest, Sha256, Sha384};

/// SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-384 of `bytes` as 96 lower-case hexadecimal digits.
pub fn sha384_hex(bytes: &[u8]) -> String {
    hex(&Sha384::digest(bytes))
}

/// CRC-32 (IEEE) over the parts, one after the other.
pub fn crc32<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = flate2::Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}

/// SipHash-1-3 with the key zero over the parts, one after the other.
pub fn siphash13<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = siphasher::sip::SipHasher13::new();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// The bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_come_out() {
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            sha384_hex(b"abc"),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
        );
        assert_eq!(crc32([&b"1234"[..], b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn siphash_is_the_one_of_the_standard_library() {
        use std::hash::Hash;
        #[allow(deprecated)]
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        "a name".hash(&mut hasher);
        7_i32.hash(&mut hasher);
        let parts: [&[u8]; 3] = [b"a name", &[0xff], &7_i32.to_le_bytes()];
        assert_eq!(siphash13(parts), hasher.finish());
    }
}
