//! The counters of containers and classes, which lie in blocks of several classes.

use traffic_common::{BLOCK_COLUMNS, ClassBlock, ClassCounters, Direction, Family, blocks_of};

use super::Elements;
use crate::kernel::bpffs::Bpffs;

/// The map of the counters by container and class.
#[derive(Debug)]
pub struct ClassBlocks {
    blocks: Elements<ClassBlock>,
}

impl ClassBlocks {
    pub(in crate::kernel) fn open(bpffs: &Bpffs, name: &'static str) -> anyhow::Result<Self> {
        Ok(Self { blocks: Elements::open(bpffs, name)? })
    }

    /// Reads the counters of `slots` containers from `first`, each with this many columns. For each container
    /// and column, one value for each possible CPU follows another.
    ///
    /// # Errors
    /// When the range is not within the map, or the kernel refuses.
    pub fn range(&self, first: u32, slots: u32, columns: u32) -> anyhow::Result<Vec<ClassCounters>> {
        let each = blocks_of(columns);
        let blocks = self.blocks.range(first * each, slots * each)?;
        Ok(by_column(&blocks, self.blocks.copies(), columns))
    }
}

/// Takes blocks apart, of which each container has as many as it needs for its columns.
pub(in crate::kernel) fn by_column(blocks: &[ClassBlock], copies: usize, columns: u32) -> Vec<ClassCounters> {
    let of_container = blocks_of(columns) as usize * copies;
    let mut all = Vec::with_capacity(blocks.len() / of_container.max(1) * columns as usize * copies);
    for container in blocks.chunks_exact(of_container.max(1)) {
        for column in 0..columns {
            let (block, within) = (column / BLOCK_COLUMNS, (column % BLOCK_COLUMNS) as usize);
            let first = block as usize * copies;
            all.extend(container[first..first + copies].iter().map(|copy| of_column(copy, within)));
        }
    }
    all
}

fn of_column(block: &ClassBlock, column: usize) -> ClassCounters {
    let mut counters = ClassCounters::default();
    for family in Family::ALL {
        for direction in Direction::BOTH {
            let [family, direction] = [family as usize, direction as usize];
            counters.tallies[family][direction] = block.tallies[family][direction][column];
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use traffic_common::{DIRECTIONS, FAMILIES, Tally};

    use super::*;

    /// A figure that names its container, column, CPU, family and direction.
    fn figure(container: u32, column: u32, cpu: u32, place: usize) -> Tally {
        let packets =
            u64::from(container) << 40 | u64::from(column) << 20 | u64::from(cpu) << 4 | place as u64;
        Tally { packets, bytes: packets * 3 }
    }

    fn block(container: u32, number: u32, cpu: u32) -> ClassBlock {
        let mut block =
            ClassBlock { tallies: [[[Tally::default(); BLOCK_COLUMNS as usize]; DIRECTIONS]; FAMILIES] };
        for (place, columns) in block.tallies.as_flattened_mut().iter_mut().enumerate() {
            for (column, tally) in (number * BLOCK_COLUMNS..).zip(columns) {
                *tally = figure(container, column, cpu, place);
            }
        }
        block
    }

    #[test]
    fn each_counter_is_found_at_its_container_column_and_cpu() {
        for columns in [1, 15, 16, 17, 40, 255] {
            let [containers, cpus] = [3, 2];
            let mut blocks = Vec::new();
            for container in 0..containers {
                for number in 0..blocks_of(columns) {
                    blocks.extend((0..cpus).map(|cpu| block(container, number, cpu)));
                }
            }
            let mut all = by_column(&blocks, cpus as usize, columns).into_iter();
            for container in 0..containers {
                for column in 0..columns {
                    for cpu in 0..cpus {
                        let counters = all.next().unwrap();
                        for (place, tally) in counters.tallies.as_flattened().iter().enumerate() {
                            assert_eq!(*tally, figure(container, column, cpu, place), "{columns} columns");
                        }
                    }
                }
            }
            assert!(all.next().is_none(), "{columns} columns");
        }
    }
}
