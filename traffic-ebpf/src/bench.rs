//! The benchmark's programs: the shipped program, built from the same modules, with some parts replaced.
//!
//! Before each packet, a generator may write the next address of a list into it. A single repeated packet
//! would find everything in the caches.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, lpm_trie::Key},
    helpers::generated::bpf_loop,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use traffic_common::{
    CLASS_ZERO_COLUMN, ClassCounters, Control, Direction, Family, Fault, InterfaceEntry, Tally,
    bench::{Address, HASH_COUNTERS, LINEAR_LINES, LinearLine, PEERS, State, TRIE_PREFIXES},
};

use crate::{
    Parts, Shipped, account,
    classify::{self, Place},
    maps::CLASS_CONTROL,
};

/// The offset at which the generator writes: [`DESTINATION_V4`], [`DESTINATION_V6`], or 0 to write nothing.
/// Frozen before load, so that the verifier removes the other branches.
#[unsafe(no_mangle)]
static BENCH_DESTINATION: u32 = 0;

/// Offset of the IPv4 destination address behind an Ethernet header.
const DESTINATION_V4: u32 = 14 + 16;
/// The same for IPv6.
const DESTINATION_V6: u32 = 14 + 24;

/// The addresses that the generator draws, one after another.
#[btf_map]
static BENCH_PEERS: Array<Address, { PEERS as usize }> = Array::new();

/// The generator's state. One element.
#[btf_map]
static BENCH_STATE: Array<State, 1> = Array::new();

/// Key: ifindex; value: interface entry. For the variant with hashes.
#[btf_map]
static BENCH_INTERFACES: HashMap<u32, InterfaceEntry, 4096> = HashMap::new();

/// Key: index of the counter; value: counters. For the variant with hashes.
#[btf_map]
static BENCH_COUNTERS: PerCpuHashMap<u32, ClassCounters, { HASH_COUNTERS as usize }> = PerCpuHashMap::new();

/// The table of the variant with a linear scan.
#[btf_map]
static BENCH_LINEAR: Array<LinearLine, { LINEAR_LINES as usize }> = Array::new();

/// A trie of the class table's IPv4 prefixes, for the variant without an index. Key: prefix; value: column.
#[btf_map]
static BENCH_TRIE_V4: LpmTrie<[u8; 4], u32, { TRIE_PREFIXES as usize }> = LpmTrie::new();

/// The same for IPv6.
#[btf_map]
static BENCH_TRIE_V6: LpmTrie<[u8; 16], u32, { TRIE_PREFIXES as usize }> = LpmTrie::new();

/// One counter for everything, for the variant that does nothing but look up. Key: 0.
#[btf_map]
static BENCH_ONE: PerCpuArray<Tally, 1> = PerCpuArray::new();

/// Only the class lookup and one counter: what no program can undercut that distinguishes classes.
#[classifier]
fn bench_line(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (data, data_end, len) =
        unsafe { ((*skb).data as usize, (*skb).data_end as usize, u64::from((*skb).len)) };
    let Some(control) = CLASS_CONTROL.get(0) else { return TC_ACT_UNSPEC };
    let v4 = (data + DESTINATION_V4 as usize) as *const [u8; 4];
    let v6 = (data + DESTINATION_V6 as usize) as *const [u8; 16];
    let version = (data + 14) as *const u8;
    let mut column = Ok(0);
    if data + 34 <= data_end {
        // SAFETY: within the packet, as checked above and again by the verifier.
        if unsafe { *version } >> 4 == 4 {
            // SAFETY: as above.
            column = classify::column_v4(control, unsafe { v4.read_unaligned() });
        } else if data + 54 <= data_end {
            // SAFETY: as above.
            column = classify::column_v6(control, unsafe { v6.read_unaligned() });
        }
    }
    if let (Ok(column), Some(one)) = (column, BENCH_ONE.get_ptr_mut(0)) {
        // SAFETY: a per-CPU element, and bottom halves are disabled.
        unsafe { (*one).count(1, len + u64::from(column)) };
    }
    TC_ACT_UNSPEC
}

/// Only the generator.
#[classifier]
fn bench_null(ctx: TcContext) -> i32 {
    generate(&ctx);
    TC_ACT_UNSPEC
}

/// The shipped program.
#[classifier]
fn bench_shipped(ctx: TcContext) -> i32 {
    generate(&ctx);
    account::<Shipped>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// A constant instead of the class lookup.
#[classifier]
fn bench_floor(ctx: TcContext) -> i32 {
    generate(&ctx);
    account::<Floor>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// The trie for every packet, without an index.
#[classifier]
fn bench_trie(ctx: TcContext) -> i32 {
    generate(&ctx);
    account::<Trie>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// A constant instead of the class lookup, and hashes instead of arrays.
#[classifier]
fn bench_hash(ctx: TcContext) -> i32 {
    generate(&ctx);
    account::<Hash>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// A scan of all lines.
#[classifier]
fn bench_linear(ctx: TcContext) -> i32 {
    generate(&ctx);
    account::<Linear>(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn generate(ctx: &TcContext) {
    // SAFETY: a valid static; volatile because its bytes are replaced before load.
    let destination = unsafe { core::ptr::read_volatile(&raw const BENCH_DESTINATION) };
    if destination == DESTINATION_V4 {
        draw::<1>(ctx.skb.skb, DESTINATION_V4);
    } else if destination == DESTINATION_V6 {
        draw::<4>(ctx.skb.skb, DESTINATION_V6);
    }
}

/// Writes the next address into the packet.
#[inline(always)]
fn draw<const WORDS: usize>(skb: *mut __sk_buff, offset: u32) {
    let Some(state) = BENCH_STATE.get_ptr_mut(0) else { return };
    // SAFETY: test runs are sequential.
    let drawn = unsafe {
        let drawn = (*state).drawn;
        (*state).drawn = drawn + 1;
        drawn
    };
    #[expect(clippy::cast_possible_truncation, reason = "masked to the number of addresses")]
    let Some(address) = BENCH_PEERS.get(drawn as u32 & (PEERS - 1)) else { return };
    // SAFETY: the context of a classifier is a valid `__sk_buff`.
    let (data, data_end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let start = data + offset as usize;
    if start + WORDS * 4 <= data_end {
        for (word, value) in address.iter().take(WORDS).enumerate() {
            // SAFETY: within the packet, as checked above and again by the verifier.
            unsafe { (start as *mut u32).add(word).write_unaligned(*value) };
        }
    }
}

struct Floor;

impl Parts for Floor {
    #[inline(always)]
    fn column_v4(_: &Control, _: [u8; 4]) -> Result<u32, Fault> {
        Ok(CLASS_ZERO_COLUMN)
    }

    #[inline(always)]
    fn column_v6(_: &Control, _: [u8; 16]) -> Result<u32, Fault> {
        Ok(CLASS_ZERO_COLUMN)
    }
}

struct Trie;

impl Parts for Trie {
    #[inline(always)]
    fn column_v4(_: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
        Ok(BENCH_TRIE_V4.get(&Key::new(32, peer)).copied().unwrap_or(CLASS_ZERO_COLUMN))
    }

    #[inline(always)]
    fn column_v6(_: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
        Ok(BENCH_TRIE_V6.get(&Key::new(128, peer)).copied().unwrap_or(CLASS_ZERO_COLUMN))
    }
}

struct Hash;

impl Parts for Hash {
    #[inline(always)]
    fn interface(ifindex: u32) -> Option<&'static InterfaceEntry> {
        // SAFETY: the value is read only, and written only before the run.
        unsafe { BENCH_INTERFACES.get(&ifindex) }
    }

    #[inline(always)]
    fn column_v4(_: &Control, _: [u8; 4]) -> Result<u32, Fault> {
        Ok(CLASS_ZERO_COLUMN)
    }

    #[inline(always)]
    fn column_v6(_: &Control, _: [u8; 16]) -> Result<u32, Fault> {
        Ok(CLASS_ZERO_COLUMN)
    }

    #[inline(always)]
    fn counter(place: Place, family: Family, direction: Direction) -> Option<&'static mut Tally> {
        let counters = BENCH_COUNTERS.get_ptr_mut(&(place.slot * place.columns + place.column))?;
        // SAFETY: a per-CPU element, and test runs are sequential.
        Some(unsafe { &mut (*counters).tallies[family as usize][direction as usize] })
    }
}

struct Linear;

impl Parts for Linear {
    #[inline(always)]
    fn column_v4(_: &Control, peer: [u8; 4]) -> Result<u32, Fault> {
        Ok(scan([u32::from_ne_bytes(peer), 0, 0, 0]))
    }

    #[inline(always)]
    fn column_v6(_: &Control, peer: [u8; 16]) -> Result<u32, Fault> {
        let (words, _) = peer.as_chunks::<4>();
        Ok(scan([0, 1, 2, 3].map(|word: usize| u32::from_ne_bytes(words[word]))))
    }
}

struct Scan {
    peer: Address,
    column: u32,
}

/// Tests every line; the last match wins.
#[inline(always)]
fn scan(peer: Address) -> u32 {
    let mut scan = Scan { peer, column: CLASS_ZERO_COLUMN };
    if let Some(state) = BENCH_STATE.get(0) {
        #[expect(clippy::cast_possible_truncation, reason = "the table has fewer lines")]
        let lines = state.linear_lines as u32;
        // SAFETY: the callback gets the pointer given here, which outlives the loop.
        unsafe { bpf_loop(lines, test_line as *mut c_void, (&raw mut scan).cast(), 0) };
    }
    // SAFETY: a local variable; volatile because the compiler does not see the loop's writes.
    unsafe { core::ptr::read_volatile(&raw const scan.column) }
}

unsafe extern "C" fn test_line(number: u32, scan: *mut c_void) -> i64 {
    // SAFETY: the loop passes the pointer that it was given.
    let scan = unsafe { &mut *scan.cast::<Scan>() };
    if let Some(line) = BENCH_LINEAR.get(number) {
        let differs = (scan.peer[0] & line.mask[0]) ^ line.network[0]
            | (scan.peer[1] & line.mask[1]) ^ line.network[1]
            | (scan.peer[2] & line.mask[2]) ^ line.network[2]
            | (scan.peer[3] & line.mask[3]) ^ line.network[3];
        if differs == 0 {
            scan.column = line.column;
        }
    }
    0
}
