//! gzip on all cores, with bytes that do not depend on how many there are.
//!
//! Every MiB becomes a gzip member of its own. A file of several members is a gzip file (RFC
//! 1952, 2.2) and unpacks to what all of them hold; layers that can be fetched lazily (eStargz)
//! have been of that kind for years, so every runtime reads them.

use libdeflater::{CompressionError, CompressionLvl, Compressor};
use rayon::prelude::*;

use super::Error;

/// Bytes of what one member holds.
pub(super) const BLOCK: usize = 1 << 20;

/// Members that are compressed at the same time. Twice as many blocks are in memory, with room
/// for their members: those, and the ones before that are written while the next are read.
const AT_ONCE: usize = 4;

/// libdeflate's level, chosen by what it gives for a Next.js standalone tree of 32 MB on one core,
/// where `gzip -6` leaves 20.06 % at 33 MB/s: level 6 leaves 20.08 % at 100 MB/s, 5 leaves
/// 20.40 % at 128, 4 leaves 20.92 % at 151, 1 leaves 22.47 % at 233. From 6 to 5 is worth it
/// where more than 12 Mbit/s can be sent. Another level is another layer: see `layer::FORMAT`.
const LEVEL: i32 = 5;

/// One block on its way.
struct GzipBlock {
    plain: Vec<u8>,
    member: Vec<u8>,
    length: usize,
}

/// Compresses the blocks that `read` puts into its buffer, which is empty, up to the first one
/// that stays empty, and gives them to `write` in their order. While some are compressed, those
/// before are written and those after are read.
///
/// Waiting is left to rayon, whose threads do other work meanwhile; so this may be called from
/// within one of them. Buffers are made once: freed by other threads than those that made them,
/// they would stay with each thread's allocator, and memory would grow with the cores.
pub(super) fn compress(
    mut read: impl FnMut(&mut Vec<u8>) -> Result<(), Error> + Send,
    mut write: impl FnMut(&[u8]) -> Result<(), Error> + Send,
    failed: impl FnOnce(std::io::Error) -> Error,
) -> Result<(), Error> {
    let level = CompressionLvl::new(LEVEL).unwrap_or_default();
    let mut compressors = Vec::new();
    let mut now: Vec<GzipBlock> = Vec::new();
    let mut other: Vec<GzipBlock> = Vec::new();
    gather(&mut now, &mut read)?;
    while !now.is_empty() {
        while compressors.len() < now.len() {
            compressors.push(Compressor::new(level));
        }
        let (next, packed) = rayon::join(
            || {
                for slot in &other {
                    write(&slot.member[..slot.length])?;
                }
                gather(&mut other, &mut read)
            },
            || {
                let work = now.par_iter_mut().zip(&mut compressors);
                work.with_max_len(1)
                    .try_for_each(|(slot, compressor)| slot.pack(compressor))
            },
        );
        next?;
        if let Err(error) = packed {
            return Err(failed(std::io::Error::other(error)));
        }
        std::mem::swap(&mut now, &mut other);
    }
    let mut last = other.iter();
    last.try_for_each(|slot| write(&slot.member[..slot.length]))
}

/// Reads the next blocks; what is left of the slots has one each.
fn gather(
    slots: &mut Vec<GzipBlock>,
    read: &mut impl FnMut(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    for place in 0..AT_ONCE {
        if place == slots.len() {
            slots.push(GzipBlock {
                plain: Vec::with_capacity(BLOCK),
                member: Vec::new(),
                length: 0,
            });
        }
        let slot = &mut slots[place];
        slot.plain.clear();
        read(&mut slot.plain)?;
        if slot.plain.is_empty() {
            slots.truncate(place);
            break;
        }
    }
    Ok(())
}

impl GzipBlock {
    /// The block as a gzip file: without a name, without a time, of no particular system.
    fn pack(&mut self, compressor: &mut Compressor) -> Result<(), CompressionError> {
        let bound = compressor.gzip_compress_bound(self.plain.len());
        if self.member.len() < bound {
            self.member = vec![0; bound];
        }
        self.length = compressor.gzip_compress(&self.plain, &mut self.member)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use super::{AT_ONCE, BLOCK, Error, compress};

    #[test]
    fn what_is_compressed_is_what_is_read_again() {
        let noise = |length: usize| -> Vec<u8> {
            let mut state = 1_u64;
            std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .take(length)
            .collect()
        };
        for length in [0, 1, BLOCK, BLOCK + 1, (2 * AT_ONCE + 3) * BLOCK + 17] {
            let data = noise(length);
            let mut blocks = data.chunks(BLOCK);
            let mut packed = Vec::new();
            let read = |block: &mut Vec<u8>| {
                block.extend_from_slice(blocks.next().unwrap_or_default());
                Ok(())
            };
            let write = |bytes: &[u8]| {
                packed.extend_from_slice(bytes);
                Ok(())
            };
            compress(read, write, Error::at("compress", Path::new(""))).expect("memory");
            let mut again = Vec::new();
            let mut decoder = flate2::read::MultiGzDecoder::new(&packed[..]);
            if length > 0 {
                decoder.read_to_end(&mut again).expect("it is gzip");
                assert_eq!(packed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
            }
            assert!(again == data, "{length} bytes");
        }
    }
}
