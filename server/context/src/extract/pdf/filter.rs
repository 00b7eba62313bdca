//! Streams are unpacked, never beyond a bound.

use flate2::{Decompress, FlushDecompress, Status};

use super::object::{Dictionary, Object};

/// Most filters one after the other.
const MAX_FILTERS: usize = 8;
/// Bytes unpacked at a time.
const STEP: usize = 1 << 16;

/// Why a stream cannot be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unpacking {
    /// It unpacks to more than may be spent.
    TooLarge,
    /// Its filter makes no text: an image, say.
    NotText,
}

/// Unpacks `bytes` as the stream's `dictionary` says, to at most `limit` bytes. What is damaged is unpacked up to the
/// damage, as other readers do.
pub(super) fn unpack(
    bytes: &[u8],
    dictionary: &Dictionary,
    limit: usize,
) -> Result<Vec<u8>, Unpacking> {
    let entry = |long: &[u8], short: &[u8]| dictionary.get(long).or_else(|| dictionary.get(short));
    let list = |object: Option<&Object>| match object {
        Some(Object::Array(items)) => items.clone(),
        Some(object) => vec![object.clone()],
        None => Vec::new(),
    };
    let filters = list(entry(b"Filter", b"F"));
    let parameters = list(entry(b"DecodeParms", b"DP"));
    if filters.len() > MAX_FILTERS {
        return Err(Unpacking::NotText);
    }
    let mut unpacked = None;
    for (index, filter) in filters.iter().enumerate() {
        let bytes = unpacked.as_deref().unwrap_or(bytes);
        let parameters = parameters.get(index).and_then(Object::dictionary);
        let number = |key: &[u8]| parameters?.get(key)?.number();
        let mut next = match filter.name().unwrap_or_default() {
            b"FlateDecode" | b"Fl" => flate(bytes, limit)?,
            b"LZWDecode" | b"LZW" => lzw(bytes, number(b"EarlyChange") != Some(0.0), limit)?,
            b"ASCII85Decode" | b"A85" => ascii85(bytes),
            b"ASCIIHexDecode" | b"AHx" => ascii_hex(bytes),
            b"RunLengthDecode" | b"RL" => run_length(bytes, limit)?,
            _ => return Err(Unpacking::NotText),
        };
        if number(b"Predictor").is_some_and(|predictor| predictor >= 10.0) {
            let at_least_one = |key| number(key).map_or(1, |number| (number as usize).max(1));
            let bits = number(b"BitsPerComponent").map_or(8, |bits| bits as usize);
            let pixel = at_least_one(b"Colors").saturating_mul(bits).div_ceil(8).max(1);
            let row = at_least_one(b"Columns").saturating_mul(at_least_one(b"Colors"));
            next = unpredict(&next, row.saturating_mul(bits).div_ceil(8).max(1), pixel);
        }
        unpacked = Some(next);
    }
    match unpacked {
        Some(unpacked) => Ok(unpacked),
        None if bytes.len() > limit => Err(Unpacking::TooLarge),
        None => Ok(bytes.to_vec()),
    }
}

fn flate(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Unpacking> {
    let mut inflate = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        out.reserve(STEP);
        let before = (inflate.total_in(), out.len());
        let rest = bytes.get(before.0 as usize..).unwrap_or_default();
        let status = inflate.decompress_vec(rest, &mut out, FlushDecompress::None);
        if out.len() > limit {
            return Err(Unpacking::TooLarge);
        }
        let stuck = (inflate.total_in(), out.len()) == before;
        match status {
            Ok(Status::Ok | Status::BufError) if !stuck => {}
            _ => return Ok(out),
        }
    }
}

fn lzw(bytes: &[u8], early: bool, limit: usize) -> Result<Vec<u8>, Unpacking> {
    const CLEAR: usize = 256;
    const END: usize = 257;
    let mut out: Vec<u8> = Vec::new();
    // Where in `out` the string of each code above 257 stands.
    let mut strings: Vec<std::ops::Range<usize>> = Vec::new();
    let mut last: Option<std::ops::Range<usize>> = None;
    let (mut buffer, mut held, mut width) = (0_u32, 0, 9);
    for &byte in bytes {
        buffer = buffer << 8 | u32::from(byte);
        held += 8;
        if held < width {
            continue;
        }
        held -= width;
        let code = (buffer >> held & ((1 << width) - 1)) as usize;
        if code == CLEAR {
            strings.clear();
            last = None;
            width = 9;
            continue;
        }
        if code == END {
            break;
        }
        let start = out.len();
        if code < CLEAR {
            out.push(code as u8);
        } else if let Some(string) = strings.get(code - 258) {
            out.extend_from_within(string.clone());
        } else {
            // The string that is only now being made: the last one and its first byte again.
            let Some(last) = last.clone().filter(|_| code - 258 == strings.len()) else { break };
            out.extend_from_within(last.clone());
            out.extend_from_within(last.start..last.start + 1);
        }
        if out.len() > limit {
            return Err(Unpacking::TooLarge);
        }
        if let Some(last) = last.filter(|_| strings.len() < 4096 - 258) {
            // It is the last string and the byte after it, which stands right there.
            strings.push(last.start..last.end + 1);
        }
        last = Some(start..out.len());
        let next = strings.len() + 258 + usize::from(early) + 1;
        width = match next {
            0..=512 => 9,
            513..=1024 => 10,
            1025..=2048 => 11,
            _ => 12,
        };
    }
    Ok(out)
}

fn ascii85(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut group) = (Vec::new(), Vec::with_capacity(5));
    for &byte in bytes {
        match byte {
            b'z' if group.is_empty() => out.extend([0; 4]),
            b'!'..=b'u' => {
                group.push(byte - b'!');
                if group.len() == 5 {
                    out.extend(base85(&group));
                    group.clear();
                }
            }
            b'~' => break,
            _ => {}
        }
    }
    if group.len() > 1 {
        let kept = group.len() - 1;
        group.resize(5, 84);
        out.extend(&base85(&group)[..kept]);
    }
    out
}

fn base85(group: &[u8]) -> [u8; 4] {
    let digit = |number: u32, digit: &u8| number.wrapping_mul(85).wrapping_add(u32::from(*digit));
    group.iter().fold(0, digit).to_be_bytes()
}

fn ascii_hex(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().take_while(|byte| **byte != b'>');
    let digits: Vec<u8> = digits
        .filter_map(|byte| char::from(*byte).to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect()
}

fn run_length(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Unpacking> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some((&length, after)) = rest.split_first() {
        let length = usize::from(length);
        rest = match (length, after.split_first()) {
            (0..=127, _) => {
                let (run, after) = after.split_at(after.len().min(length + 1));
                out.extend(run);
                after
            }
            // 128 is the end.
            (129.., Some((&byte, after))) => {
                out.extend(std::iter::repeat_n(byte, 257 - length));
                after
            }
            _ => break,
        };
        if out.len() > limit {
            return Err(Unpacking::TooLarge);
        }
    }
    Ok(out)
}

/// Undoes the predictors of PNG, a row of `row` bytes after its kind at a time.
fn unpredict(bytes: &[u8], row: usize, pixel: usize) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    for line in bytes.chunks(row.saturating_add(1)) {
        let (kind, line) = (line[0], &line[1..]);
        let start = out.len();
        for (at, &byte) in line.iter().enumerate() {
            let left = if at >= pixel { out[start + at - pixel] } else { 0 };
            let up = if start >= row { out[start + at - row] } else { 0 };
            let corner =
                if at >= pixel && start >= row { out[start + at - row - pixel] } else { 0 };
            let predicted = match kind {
                1 => left,
                2 => up,
                3 => u8::midpoint(left, up),
                4 => paeth(left, up, corner),
                _ => 0,
            };
            out.push(byte.wrapping_add(predicted));
        }
    }
    out
}

fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(up), i16::from(corner));
    let p = a + b - c;
    let (from_a, from_b, from_c) = ((p - a).abs(), (p - b).abs(), (p - c).abs());
    if from_a <= from_b && from_a <= from_c {
        left
    } else if from_b <= from_c {
        up
    } else {
        corner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(filters: &[&str]) -> Dictionary {
        let names = filters.iter().map(|name| Object::Name(name.as_bytes().to_vec())).collect();
        Dictionary::from([(b"Filter".to_vec(), Object::Array(names))])
    }

    #[test]
    fn filters_unpack_what_others_packed() {
        let unpacked = |bytes: &[u8], filters: &[&str]| unpack(bytes, &named(filters), 100);
        assert_eq!(unpacked(b"plain", &[]), Ok(b"plain".to_vec()));
        assert_eq!(unpacked(b"68 656C6c6F7>", &["ASCIIHexDecode"]), Ok(b"hellop".to_vec()));
        assert_eq!(
            unpacked(b"87cURD_*#TDfTZ)~>", &["ASCII85Decode"]),
            Ok(b"Hello, world".to_vec())
        );
        assert_eq!(
            unpacked(&[2, b'a', b'b', b'c', 254, b'x', 128, 9], &["RunLengthDecode"]),
            Ok(b"abcxxx".to_vec())
        );
        // The example of the PDF specification: 45 45 45 45 45 65 45 45 45 66.
        let packed = [0x80, 0x0b, 0x60, 0x50, 0x22, 0x0c, 0x0c, 0x85, 0x01];
        assert_eq!(
            unpacked(&packed, &["LZWDecode"]),
            Ok(vec![45, 45, 45, 45, 45, 65, 45, 45, 45, 66])
        );
        assert_eq!(unpacked(b"", &["DCTDecode"]), Err(Unpacking::NotText));
        assert_eq!(unpacked(b"garbage", &["FlateDecode"]), Ok(Vec::new()));
    }

    #[test]
    fn rows_are_unpredicted() {
        let rows = [1, 1, 1, 1, 2, 1, 1, 1, 4, 1, 1, 1, 0, 7];
        assert_eq!(unpredict(&rows, 3, 1), [1, 2, 3, 2, 3, 4, 3, 4, 5, 7]);
    }
}
