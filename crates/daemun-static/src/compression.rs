//! Compressed siblings: each distinct content once, on every core, and only where it pays.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compress, Compression as Level, Crc, FlushCompress};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::content::Content;
use crate::error::Error;
use crate::progress::{Progress, Silent};
use crate::settings::Compression;

/// What is left of a file may be this part of it at most, in hundredths: with less to gain, a second file to keep and
/// to choose from costs more. whitenoise's figure.
const PAYS: u64 = 95;

/// Larger files stay as they are: an encoder takes several times their size of memory, and minutes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// A content's address.
pub(crate) type Address = [u8; 32];

/// An encoding that browsers name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Encoding {
    Brotli,
    Gzip,
    Zstd,
}

/// What the siblings come to.
#[derive(Debug, Default)]
pub(crate) struct Siblings {
    /// Name, content, and the length of the file that it is a sibling of.
    pub(crate) files: Vec<(String, Content, u64)>,
    /// Distinct contents, and how many encodings of them were in the cache and how many had to be made.
    pub(crate) contents: usize,
    pub(crate) cached: usize,
    pub(crate) made: usize,
    /// Files that are too large.
    pub(crate) large: Vec<String>,
}

/// The encodings of one content that pay.
struct Encoded {
    variants: Vec<(Encoding, Arc<[u8]>)>,
    cached: usize,
    made: usize,
}

/// Compresses these files.
pub(crate) fn compress(
    settings: &Compression,
    cache: Option<&Cache>,
    files: &[(&str, &Content)],
    progress: &dyn Progress,
) -> Result<Siblings, Error> {
    let mut siblings = Siblings::default();
    let (wanted, large): (Vec<_>, Vec<_>) =
        files.iter().filter(|(name, _)| pays_to_try(settings, name)).partition(|(_, content)| content.len() <= LARGEST);
    siblings.large = large.iter().map(|(name, _)| (*name).to_owned()).collect();
    let addresses: Vec<Address> = wanted
        .par_iter()
        .map(|(_, content)| Ok(Sha256::digest(&content.bytes()?[..]).into()))
        .collect::<Result<_, Error>>()?;
    let mut distinct: HashMap<Address, &Content> = HashMap::new();
    for (&address, (_, content)) in addresses.iter().zip(&wanted) {
        distinct.entry(address).or_insert(content);
    }
    let mut jobs: Vec<(Address, &Content)> = distinct.into_iter().collect();
    // The longest first, or the last one would keep a single core busy.
    jobs.sort_by_key(|(address, content)| (std::cmp::Reverse(content.len()), *address));
    siblings.contents = jobs.len();
    progress.begin("compressing", jobs.len());
    let encoded: HashMap<Address, Encoded> = jobs
        .par_iter()
        .with_max_len(1)
        .map(|(address, content)| {
            let encoded = encode(settings, cache, address, &content.bytes()?)?;
            progress.step();
            Ok((*address, encoded))
        })
        .collect::<Result<_, Error>>()?;
    for one in encoded.values() {
        siblings.cached += one.cached;
        siblings.made += one.made;
    }
    for (address, (name, content)) in addresses.iter().zip(&wanted) {
        for (encoding, bytes) in encoded.get(address).map_or(&[][..], |encoded| &encoded.variants) {
            let name = format!("{name}.{}", encoding.extension());
            siblings.files.push((name, Content::Memory(bytes.clone()), content.len()));
        }
    }
    Ok(siblings)
}

/// Compresses files where they lie, for a tree that somebody else made: each sibling appears by renaming, and one of an
/// earlier build that does not fit any more goes.
pub fn compress_in_place(files: &[PathBuf], settings: &Compression) -> Result<(), Error> {
    let mut contents = Vec::new();
    for path in files {
        let length = std::fs::metadata(path).map_err(Error::io("cannot read", path))?.len();
        let name = path.to_str().ok_or_else(|| Error::Name(path.clone()))?;
        contents.push((name, Content::File(path.clone(), length)));
    }
    let listed: Vec<(&str, &Content)> = contents.iter().map(|(name, content)| (*name, content)).collect();
    let made = compress(settings, None, &listed, &Silent)?;
    for (name, content, _) in &made.files {
        let target = Path::new(name);
        let own = target.file_name().unwrap_or_default().to_string_lossy();
        let beside = target.with_file_name(format!(".{own}.{}", std::process::id()));
        content.write(&beside)?;
        let base = target.with_extension("");
        let permissions = std::fs::metadata(&base).map_err(Error::io("cannot read", &base))?.permissions();
        std::fs::set_permissions(&beside, permissions).map_err(Error::io("cannot set the mode of", &beside))?;
        std::fs::rename(&beside, target).map_err(Error::io("cannot write", target))?;
    }
    let made: HashSet<&str> = made.files.iter().map(|(name, _, _)| name.as_str()).collect();
    for (name, _) in &listed {
        for encoding in [Encoding::Brotli, Encoding::Gzip, Encoding::Zstd] {
            let sibling = format!("{name}.{}", encoding.extension());
            if !made.contains(sibling.as_str()) {
                // Most were never there.
                let _ = std::fs::remove_file(sibling);
            }
        }
    }
    Ok(())
}

fn pays_to_try(settings: &Compression, name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    !extension.is_some_and(|own| settings.skip.iter().any(|skipped| skipped.eq_ignore_ascii_case(own)))
}

fn encode(settings: &Compression, cache: Option<&Cache>, address: &Address, bytes: &[u8]) -> Result<Encoded, Error> {
    let mut encoded = Encoded { variants: Vec::new(), cached: 0, made: 0 };
    let levels =
        [(Encoding::Brotli, settings.brotli), (Encoding::Gzip, settings.gzip), (Encoding::Zstd, settings.zstd)];
    for (encoding, level) in levels {
        let Some(level) = level else { continue };
        let skipped = encoding == Encoding::Gzip && settings.gzip_only_with_brotli && settings.brotli.is_some();
        if skipped && encoded.variants.is_empty() {
            continue;
        }
        let kept = cache.and_then(|cache| cache.get(encoding, level, address));
        let packed = if let Some(packed) = kept {
            encoded.cached += 1;
            packed
        } else {
            encoded.made += 1;
            let packed = encoding.encode(level, bytes)?;
            if let Some(cache) = cache {
                cache.put(encoding, level, address, &packed);
            }
            packed
        };
        if !bytes.is_empty() && packed.len() as u64 * 100 <= bytes.len() as u64 * PAYS {
            encoded.variants.push((encoding, packed.into()));
        }
    }
    Ok(encoded)
}

// === impl Encoding ===

impl Encoding {
    /// The sibling's extension.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        }
    }

    fn encode(self, level: u32, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |error: String| Error::Unsupported(format!("cannot compress with level {level}: {error}"));
        match self {
            Self::Brotli => brotli(level, bytes).map_err(failed),
            Self::Gzip => gzip(level, bytes).map_err(failed),
            Self::Zstd => zstd::bulk::compress(bytes, level as i32).map_err(|error| failed(error.to_string())),
        }
    }
}

fn brotli(level: u32, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let quality = brotlic::Quality::new(level as u8).map_err(|error| error.to_string())?;
    let window = brotlic::WindowSize::new(window_bits(bytes.len())).map_err(|error| error.to_string())?;
    // Where more comes out than this, the encoder stores what went in; a sibling like that is not kept anyway.
    let bound = brotlic::compress_bound(bytes.len(), brotlic::Quality::best()).unwrap_or_default();
    let mut packed = vec![0; bound];
    let length = brotlic::compress(bytes, &mut packed, quality, window, brotlic::CompressionMode::Generic);
    packed.truncate(length.map_err(|error| error.to_string())?);
    Ok(packed)
}

/// The smallest window that reaches all over so many bytes, up to brotli's default (RFC 7932, section 9.1: a window of
/// w bits reaches 16 bytes less). The encoder, and the decoder in the browser, take memory for the window they are told.
fn window_bits(length: usize) -> u8 {
    (16..22).find(|&bits| length <= (1 << bits) - 16).unwrap_or(22)
}

/// A gzip member without a name and a time, so that the same content gives the same bytes.
fn gzip(level: u32, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let hint = match level {
        9 => 2,
        1 => 4,
        _ => 0,
    };
    let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
    out.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, hint, 255]);
    let mut stream = Compress::new(Level::new(level), false);
    loop {
        let given = stream.total_in() as usize;
        out.reserve(64 * 1024);
        let status =
            stream.compress_vec(&bytes[given..], &mut out, FlushCompress::Finish).map_err(|error| error.to_string())?;
        if status == flate2::Status::StreamEnd {
            break;
        }
    }
    let mut sum = Crc::new();
    sum.update(bytes);
    out.extend(sum.sum().to_le_bytes());
    out.extend(sum.amount().to_le_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_window_reaches_all_over_what_is_compressed() {
        let bits = [0, 65_520, 65_521, 4_194_288, 4_194_289].map(window_bits);
        assert_eq!(bits, [16, 16, 17, 22, 22]);
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let text = "a { color: red } ".repeat(1000).into_bytes();
        for level in [1, 6, 9] {
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&gzip(level, &text).unwrap()[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, text);
        }
        let mut back = Vec::new();
        let packed = brotli(11, &text).unwrap();
        brotlic::DecompressorReader::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        let packed = Encoding::Zstd.encode(19, &text).unwrap();
        assert_eq!(zstd::bulk::decompress(&packed, text.len()).unwrap(), text);
    }

    #[test]
    fn what_is_compressed_already_is_not_tried() {
        let settings = Compression { skip: vec![String::from("png")], ..Compression::default() };
        assert!(!pays_to_try(&settings, "a.PNG"));
        assert!(pays_to_try(&settings, "a.png.css"));
        assert!(pays_to_try(&settings, "png"));
    }
}
