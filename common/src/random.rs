//! Random names, from the operating system.

use std::{fs::File, io::Read, path::Path};

use crate::{Error, Result};

/// 64 random bits.
pub fn bits() -> Result<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Error::io("read", path, source))?;
    Ok(u64::from_le_bytes(bytes))
}

/// 16 hexadecimal digits.
pub fn hex_id() -> Result<String> {
    Ok(format!("{:016x}", bits()?))
}
