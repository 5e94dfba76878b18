//! gzip through flate2, and so through `vendor/libz-ng-sys`: the shim really compresses, and reads
//! what another zlib wrote.
use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

fn text() -> Vec<u8> {
    (0..200_000_u32).flat_map(|it| format!("line {} of {}\n", it, it % 97).into_bytes()).collect()
}

#[test]
fn gzip_goes_there_and_back_at_every_level() {
    let text = text();
    for level in 0..=9 {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(&text).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(level == 0 || packed.len() < text.len() / 2, "level {level}: {}", packed.len());
        let mut back = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert!(back == text, "level {level}");
    }
}

#[test]
fn what_another_zlib_wrote_is_read() {
    // printf 'tollgate' | gzip -n -9
    let packed = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x2b, 0xc9, 0xcf, 0xc9, 0x49,
        0x4f, 0x2c, 0x49, 0x05, 0x00, 0xea, 0x6e, 0x5d, 0x8a, 0x08, 0x00, 0x00, 0x00,
    ];
    let mut back = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut back).unwrap();
    assert_eq!(back, "tollgate");
}

#[test]
fn damage_is_an_error() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&text()).unwrap();
    let mut packed = encoder.finish().unwrap();
    let middle = packed.len() / 2;
    packed[middle] ^= 0x55;
    assert!(GzDecoder::new(&packed[..]).read_to_end(&mut Vec::new()).is_err());
}
