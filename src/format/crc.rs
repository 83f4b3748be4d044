//! CRC-32 (IEEE 802.3, reflected) as a `const fn`.

const TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
};

/// CRC-32 of `bytes[from..]`.
pub(super) const fn crc32(bytes: &[u8], from: usize) -> u32 {
    let mut c = !0u32;
    let mut i = from;
    while i < bytes.len() {
        c = TABLE[((c ^ bytes[i] as u32) & 0xff) as usize] ^ (c >> 8);
        i += 1;
    }
    !c
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_crc_32() {
        assert_eq!(super::crc32(b"123456789", 0), 0xcbf4_3926);
        assert_eq!(super::crc32(b"xx123456789", 2), 0xcbf4_3926);
    }
}
