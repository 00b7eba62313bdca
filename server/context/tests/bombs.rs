//! Files that unpack to far more than they are. A process of its own, so that its memory can be looked at.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use flate2::{Compress, Compression, FlushCompress};
use pith_context::extract;
use pith_context::extract::ExtractError;

/// `megabytes` times a mebibyte of `pattern`, deflated.
fn deflated(pattern: &[u8], megabytes: usize) -> Vec<u8> {
    let block = pattern.repeat((1 << 20) / pattern.len());
    let (mut deflate, mut out) = (Compress::new(Compression::fast(), true), Vec::new());
    for round in 0..megabytes {
        let (mut at, last) = (0, round + 1 == megabytes);
        loop {
            out.reserve(1 << 16);
            let before = deflate.total_in();
            let flush = if last { FlushCompress::Finish } else { FlushCompress::None };
            let status = deflate.compress_vec(&block[at..], &mut out, flush).unwrap();
            at += (deflate.total_in() - before) as usize;
            if if last { status == flate2::Status::StreamEnd } else { at == block.len() } {
                break;
            }
        }
    }
    out
}

/// A file whose page draws `streams` streams of `packed`, each filtered so often; of `kind`, if not drawn.
fn file(packed: &[u8], streams: usize, filters: usize, kind: &str) -> Vec<u8> {
    let filters = "/FlateDecode ".repeat(filters);
    let contents: String = (0..streams).map(|index| format!("{} 0 R ", index + 10)).collect();
    let mut file = format!(
        "%PDF-1.4\n1 0 obj <</Pages 2 0 R>> endobj 2 0 obj <</Kids [3 0 R]>> endobj 3 0 obj <</Contents [{contents}]>> endobj\n"
    )
    .into_bytes();
    for index in 0..streams {
        let head = format!(
            "{} 0 obj <<{kind} /Filter [{filters}] /Length {}>> stream\n",
            index + 10,
            packed.len()
        );
        file.extend(head.into_bytes());
        file.extend(packed);
        file.extend(b"\nendstream endobj\n");
    }
    file.extend(b"trailer <</Root 1 0 R>>\n");
    file
}

/// Most memory this process has had, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn what_unpacks_without_end_is_refused_and_takes_little_memory() {
    let spaces = deflated(b" ", 400);
    // Packed twice, half a gigabyte is a few kilobytes.
    let twice = {
        let mut deflate = Compress::new(Compression::fast(), true);
        let mut out = Vec::with_capacity(spaces.len() + 1024);
        deflate.compress_vec(&spaces, &mut out, FlushCompress::Finish).unwrap();
        out
    };
    let some = deflated(b"1 ", 30);
    let cases = [
        ("one stream", file(&spaces, 1, 1, "")),
        ("filters of filters", file(&twice, 1, 2, "")),
        ("many streams", file(&deflated(b" ", 60), 40, 1, "")),
        ("streams of objects", file(&some, 40, 1, "/Type /ObjStm /N 9999999 /First 31457280")),
        ("arrays", file(&deflated(b"[1 1 1 1 ] TJ ", 60), 40, 1, "")),
        ("one array", file(&deflated(b"[", 60), 40, 1, "")),
    ];
    let before = peak();
    for (name, bytes) in cases {
        let clock = Instant::now();
        let refused = extract(&bytes, "application/pdf", &mut || true);
        assert!(matches!(refused, Err(ExtractError::TooLarge { .. })), "{name}: {refused:?}");
        let took = clock.elapsed();
        assert!(took.as_secs() < 60, "{name}: {took:?}");
        let grown = peak() - before;
        assert!(grown < 320, "{name}: {grown} MiB");
    }
}
