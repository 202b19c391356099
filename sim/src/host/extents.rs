//! Where the blocks of a snapshot lie: the image of it that a reader of the bare device would see, and in what two images differ.
//!
//! Blind spots: the model keeps no block map of a file system, so its blocks are laid out one after the other, in the order of their files,
//! behind one block that stands for its tree. That image is a function of the snapshot alone: what is said to differ between two snapshots is
//! exactly what differs between their images.

use std::collections::BTreeMap;

use wavetank_driver::Bytes;
use wavetank_driver::pool::Extent;

use super::cell::{BLOCK, Cell};
use super::filesystem::ROOT;
use super::volume::Content;

/// What one block of the image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// The tree of the file system: its identity, its size, and every file and directory.
    Tree(Vec<String>),
    /// What was written there.
    Cell(Cell),
}

fn image(content: &Content) -> BTreeMap<u64, Piece> {
    let mut pieces = BTreeMap::new();
    if let Some(fs) = &content.fs {
        let mut tree = fs.names_below(ROOT);
        tree.push(format!("{} {} {}", fs.kind, fs.uuid, fs.size));
        pieces.insert(0, Piece::Tree(tree));
        let files = fs.blocks_below(ROOT).into_iter().zip(1..);
        pieces.extend(files.map(|(found, nth)| (nth, Piece::Cell(found.cell))));
    }
    let raw = content.raw.iter();
    pieces.extend(raw.map(|(block, cell)| (*block, Piece::Cell(cell.clone()))));
    pieces
}

/// At most `limit` extents of `target` from `offset` on: those that `base` holds differently, or, without a base, those that hold anything.
pub(super) fn between(base: Option<&Content>, target: &Content, offset: Bytes, limit: usize) -> Vec<Extent> {
    let target = image(target);
    let base = base.map(image);
    let mut blocks: Vec<u64> = match &base {
        None => target.keys().copied().collect(),
        Some(base) => {
            let there = target
                .keys()
                .chain(base.keys().filter(|block| !target.contains_key(block)));
            there
                .filter(|block| base.get(block) != target.get(block))
                .copied()
                .collect()
        }
    };
    blocks.sort_unstable();
    let mut extents: Vec<Extent> = Vec::new();
    for block in blocks {
        let start = (block * BLOCK).max(offset.0);
        let end = (block + 1) * BLOCK;
        if end <= offset.0 {
            continue;
        }
        let is_full = extents.len() == limit;
        match extents.last_mut() {
            Some(last) if last.offset.0 + last.len.0 == start => last.len.0 += end - start,
            _ if is_full => break,
            _ => extents.push(Extent {
                offset: Bytes(start),
                len: Bytes(end - start),
            }),
        }
    }
    extents
}
