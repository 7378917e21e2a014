//! Compresses with gzip on all cores. The bytes do not depend on the number of cores.
//!
//! Every MiB is a separate gzip member. A gzip file may have several members (RFC 1952, 2.2), and
//! unpacks to the content of all members. Layers in the eStargz format have several members too, so
//! every runtime reads them.

use libdeflater::{CompressionError, CompressionLvl, Compressor};
use rayon::prelude::*;

use super::Error;

/// Uncompressed bytes of one member.
pub(super) const BLOCK: usize = 1 << 20;

/// Members that are compressed at the same time. Twice as many blocks are in memory: while these
/// are compressed, the blocks before are written and the blocks after are read.
const AT_ONCE: usize = 4;

/// libdeflate's level, measured with a Next.js standalone tree of 32 MB on one core. `gzip -6`
/// compresses to 20.06 % at 33 MB/s; level 6 to 20.08 % at 100 MB/s, level 5 to 20.40 % at 128,
/// level 4 to 20.92 % at 151, level 1 to 22.47 % at 233. Level 5 is faster than 6 in total where
/// an upload has more than 12 Mbit/s. Another level gives other layers: see `layer::FORMAT`.
const LEVEL: i32 = 5;

/// A block and its compressed member. The buffers are used again.
struct GzipBlock {
    plain: Vec<u8>,
    member: Vec<u8>,
    length: usize,
}

/// Compresses the blocks that `read` appends to its empty buffer, until a buffer stays empty, and
/// passes them to `write` in their order.
///
/// Only rayon blocks here, so this may be called from a rayon thread. Buffers are allocated once: a
/// buffer that another thread frees stays in the allocator of that thread, and memory use then
/// grows with the number of cores.
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
                for block in &other {
                    write(&block.member[..block.length])?;
                }
                gather(&mut other, &mut read)
            },
            || {
                let work = now.par_iter_mut().zip(&mut compressors);
                work.with_max_len(1)
                    .try_for_each(|(block, compressor)| block.pack(compressor))
            },
        );
        next?;
        if let Err(error) = packed {
            return Err(failed(std::io::Error::other(error)));
        }
        std::mem::swap(&mut now, &mut other);
    }
    let mut last = other.iter();
    last.try_for_each(|block| write(&block.member[..block.length]))
}

/// Reads the next blocks. At the end, blocks without content are removed.
fn gather(
    blocks: &mut Vec<GzipBlock>,
    read: &mut impl FnMut(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    for place in 0..AT_ONCE {
        if place == blocks.len() {
            blocks.push(GzipBlock {
                plain: Vec::with_capacity(BLOCK),
                member: Vec::new(),
                length: 0,
            });
        }
        let block = &mut blocks[place];
        block.plain.clear();
        read(&mut block.plain)?;
        if block.plain.is_empty() {
            blocks.truncate(place);
            break;
        }
    }
    Ok(())
}

impl GzipBlock {
    /// Compresses the block to a gzip member without a name and a time.
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
