//! The arena plan: an offset for every tensor, from its lifetime.
//!
//! Two activations may share bytes when they are never alive at the same time, and an in-place op
//! writes over its input when nobody reads that input again. Where a tensor is used in parts, each of its
//! bytes is alive for its own time: rows of an image that have been read make room for rows of its feature
//! map. Finding the smallest arena is NP-hard
//! (dynamic storage allocation), so several greedy orders are tried, then seeded perturbations of
//! the best; the result is compared with the lower bound, the largest sum of simultaneously live
//! tensors.

use super::{ALIGN, Program, Role, Space, TensorId};
use crate::math::random::Stream;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Where every tensor of a Program lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    offsets: Vec<usize>,
    sizes: [usize; Space::COUNT],
    lower_bound: usize,
    lifetimes: Vec<Option<Range<usize>>>,
}

/// The regions of the parameters (and, at the same offsets, of the gradients), in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamLayout {
    /// Parameters with weight decay.
    pub decayed: Range<usize>,
    /// Parameters without.
    pub plain: Range<usize>,
    /// Running statistics (batch statistics, in the gradients).
    pub statistics: Range<usize>,
    offsets: Vec<(TensorId, usize)>,
}

const fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

impl ParamLayout {
    /// The layout of the parameters of `program`: each group in the order of declaration.
    pub fn new(program: &Program) -> Self {
        let mut layout = Self::default();
        let mut at = 0;
        let group = |wanted: fn(Role) -> bool, at: &mut usize, offsets: &mut Vec<_>| {
            let start = *at;
            for (i, t) in program.tensors.iter().enumerate() {
                if wanted(t.role) {
                    offsets.push((TensorId(i as u16), *at));
                    *at += align(t.bytes());
                }
            }
            start..*at
        };
        let offsets = &mut layout.offsets;
        layout.decayed = group(|r| r == Role::Param { decay: true }, &mut at, offsets);
        layout.plain = group(|r| r == Role::Param { decay: false }, &mut at, offsets);
        layout.statistics = group(|r| r == Role::Statistic, &mut at, offsets);
        layout.offsets.sort_unstable();
        layout
    }

    /// Bytes of all groups.
    pub fn bytes(&self) -> usize {
        self.statistics.end
    }

    /// Offset of a parameter or statistic.
    pub fn offset(&self, id: TensorId) -> usize {
        let i = self.offsets.binary_search_by_key(&id, |o| o.0).expect("a parameter of this Program");
        self.offsets[i].1
    }
}

/// Activations that share one place because in-place ops hand it on, or because they are parts of each other.
struct Group {
    /// From the first to the last use of any of its bytes.
    life: Range<usize>,
    /// A multiple of [`ALIGN`].
    bytes: usize,
    /// Its bytes, by when they are alive; one where they all are at the same time.
    segments: Vec<Segment>,
}

/// Bytes that are alive together.
#[derive(Clone, Debug, PartialEq)]
struct Segment {
    bytes: Range<usize>,
    life: Range<usize>,
}

impl Segment {
    fn meets(&self, life: &Range<usize>) -> bool {
        self.life.start < life.end && life.start < self.life.end
    }
}

impl Group {
    /// A group from all uses of its bytes.
    fn new(uses: Vec<Segment>) -> Self {
        let hull = |uses: &mut dyn Iterator<Item = &Segment>| {
            uses.fold(None, |life: Option<Range<usize>>, Segment { life: l, .. }| {
                Some(life.map_or(l.clone(), |life| life.start.min(l.start)..life.end.max(l.end)))
            })
        };
        let mut cuts: Vec<usize> = uses.iter().flat_map(|u| [u.bytes.start, align(u.bytes.end)]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut segments: Vec<Segment> = Vec::new();
        for cut in cuts.windows(2) {
            let bytes = cut[0]..cut[1];
            let life = hull(&mut uses.iter().filter(|u| u.bytes.start < bytes.end && bytes.start < u.bytes.end));
            let Some(life) = life else { continue };
            match segments.last_mut() {
                Some(last) if last.life == life && last.bytes.end == bytes.start => last.bytes.end = bytes.end,
                _ => segments.push(Segment { bytes, life }),
            }
        }
        let life = hull(&mut uses.iter()).unwrap_or_default();
        Self { life, bytes: segments.last().map_or(0, |s| s.bytes.end), segments }
    }
}

impl Plan {
    /// Places every tensor of `program`.
    pub fn new(program: &Program) -> Self {
        let lifetimes = lifetimes(program);
        let (group_of, groups) = groups(program, &lifetimes);
        let lower_bound = live_peak(&groups);
        let (places, peak) = place(&groups, lower_bound);

        let layout = ParamLayout::new(program);
        let mut sizes = [0; Space::COUNT];
        sizes[Space::Arena as usize] = peak;
        sizes[Space::Params as usize] = layout.bytes();
        let mut offsets = vec![0; program.tensors.len()];
        let mut weights: Vec<TensorId> = Vec::new();
        for (i, t) in program.tensors.iter().enumerate() {
            let id = TensorId(i as u16);
            let grow = |space: Space, end: usize, sizes: &mut [usize; Space::COUNT]| {
                sizes[space as usize] = sizes[space as usize].max(end);
            };
            offsets[i] = match t.role {
                Role::Activation => group_of[i].map_or(0, |g| places[g]),
                Role::Part { of, offset } => group_of[of.index()].map_or(0, |g| places[g]) + offset,
                Role::Param { .. } | Role::Statistic => layout.offset(id),
                Role::GradOf(of) => {
                    let at = layout.offset(of);
                    grow(Space::Grads, at + align(t.bytes()), &mut sizes);
                    at
                }
                Role::Window { space, offset } => {
                    grow(space, offset + align(t.bytes()), &mut sizes);
                    offset
                }
                Role::Constant => {
                    // Equal constants are stored once.
                    let twin = weights.iter().find(|w| program.tensor(**w).data == t.data);
                    match twin {
                        Some(twin) => offsets[twin.index()],
                        None => {
                            weights.push(id);
                            let at = sizes[Space::Weights as usize];
                            grow(Space::Weights, at + align(t.bytes()), &mut sizes);
                            at
                        }
                    }
                }
                Role::State => {
                    let at = sizes[Space::State as usize];
                    grow(Space::State, at + align(t.bytes()), &mut sizes);
                    at
                }
            };
        }
        Self { offsets, sizes, lower_bound, lifetimes }
    }

    /// Byte offset of a tensor in its space.
    pub fn offset(&self, id: TensorId) -> usize {
        self.offsets[id.index()]
    }

    /// The plan with one tensor elsewhere: what a verifier must catch.
    #[cfg(test)]
    pub(crate) fn moved(&self, id: TensorId, offset: usize) -> Self {
        let mut plan = self.clone();
        plan.offsets[id.index()] = offset;
        plan
    }

    /// Bytes of a space.
    pub fn size(&self, space: Space) -> usize {
        self.sizes[space as usize]
    }

    /// The largest sum of simultaneously live activations, in bytes: no plan can be smaller.
    pub fn lower_bound(&self) -> usize {
        self.lower_bound
    }

    /// When an activation is alive: from the op that first writes it (0 is before the first op, op
    /// `i` is moment `i + 1`) up to and including its last use. `None` for other tensors, and where it is
    /// used in parts only.
    pub fn lifetime(&self, id: TensorId) -> Option<Range<usize>> {
        self.lifetimes[id.index()].clone()
    }
}

/// What [`Plan::lower_bound`] would be.
pub(super) fn least_arena(program: &Program) -> usize {
    live_peak(&groups(program, &lifetimes(program)).1)
}

/// When each tensor is alive, as [`Plan::lifetime`] says.
pub(super) fn lifetimes(program: &Program) -> Vec<Option<Range<usize>>> {
    let mut lives: Vec<Option<Range<usize>>> = vec![None; program.tensors.len()];
    let mut touch = |id: TensorId, moment: usize| {
        if program.tensor(id).space() == Space::Arena {
            let life = lives[id.index()].get_or_insert(moment..moment + 1);
            life.start = life.start.min(moment);
            life.end = life.end.max(moment + 1);
        }
    };
    for &id in &program.inputs {
        touch(id, 0);
    }
    for (i, node) in program.nodes.iter().enumerate() {
        for &id in node.ins.iter().chain(&node.outs).flatten() {
            touch(id, i + 1);
        }
    }
    for &id in &program.outputs {
        touch(id, program.nodes.len() + 1);
    }
    lives
}

/// Where an activation or a part of one lies in what is no part, and when it is alive.
struct Use {
    id: TensorId,
    segment: Segment,
}

/// The uses of every activation that is no part, by its index.
fn uses(program: &Program, lives: &[Option<Range<usize>>]) -> Vec<Vec<Use>> {
    let mut uses: Vec<Vec<Use>> = program.tensors.iter().map(|_| Vec::new()).collect();
    for (i, (t, life)) in program.tensors.iter().zip(lives).enumerate() {
        let Some(life) = life.clone() else { continue };
        let (root, offset) = match t.role {
            Role::Part { of, offset } => (of.index(), offset),
            _ => (i, 0),
        };
        let segment = Segment { bytes: offset..offset + t.bytes(), life };
        uses[root].push(Use { id: TensorId(i as u16), segment });
    }
    uses
}

/// Whether every byte of `after` is first used when the same byte of `before` is used no more, or by an
/// in-place op that writes the one over the other.
fn takes_over(program: &Program, before: &[Use], after: &[Use]) -> bool {
    let handed_on = |read: &Use, written: &Use| {
        let Some(node) = written.segment.life.start.checked_sub(1).and_then(|i| program.nodes.get(i)) else {
            return false;
        };
        let same_place = read.segment.bytes == written.segment.bytes && node.op.signature().is_in_place();
        let operands = (Some(read.id), Some(written.id)) == (node.ins[0], node.outs[0]);
        same_place && operands && !node.ins[1..].contains(&Some(read.id))
    };
    let in_order = |read: &Use, written: &Use| {
        let (old, new) = (&read.segment, &written.segment);
        let apart = old.bytes.end <= new.bytes.start || new.bytes.end <= old.bytes.start;
        apart || old.life.end <= new.life.start || (old.life.end == new.life.start + 1 && handed_on(read, written))
    };
    before.iter().all(|read| after.iter().all(|written| in_order(read, written)))
}

/// The group of every activation that is no part, and the groups.
fn groups(program: &Program, lives: &[Option<Range<usize>>]) -> (Vec<Option<usize>>, Vec<Group>) {
    let uses = uses(program, lives);
    let root = |id: TensorId| match program.tensor(id).role {
        Role::Part { of, .. } => of.index(),
        _ => id.index(),
    };
    let mut group_of: Vec<Option<usize>> = vec![None; program.tensors.len()];
    let mut members: Vec<Vec<usize>> = Vec::new();
    // An input was written by an earlier op or is an input of the Program: in the order of
    // execution, it has its group when an op takes it over.
    for (i, node) in program.nodes.iter().enumerate().filter(|(_, node)| node.op.signature().is_in_place()) {
        let (Some(input), Some(output)) = (node.ins[0], node.outs[0]) else { continue };
        let (Some(read), Some(written)) = (&lives[input.index()], &lives[output.index()]) else { continue };
        let (before, after) = (root(input), root(output));
        if read.end != i + 2 || written.start != i + 1 || before == after || group_of[after].is_some() {
            continue;
        }
        let group = *group_of[before].get_or_insert_with(|| {
            members.push(vec![before]);
            members.len() - 1
        });
        if members[group].iter().all(|&member| takes_over(program, &uses[member], &uses[after])) {
            members[group].push(after);
            group_of[after] = Some(group);
        }
    }
    for i in (0..uses.len()).filter(|&i| !uses[i].is_empty()) {
        group_of[i].get_or_insert_with(|| {
            members.push(vec![i]);
            members.len() - 1
        });
    }
    let segments = |members: &[usize]| members.iter().flat_map(|&i| &uses[i]).map(|u| u.segment.clone()).collect();
    (group_of, members.iter().map(|members| Group::new(segments(members))).collect())
}

/// The bytes that are alive while each op runs.
pub(super) fn live_bytes(program: &Program) -> Vec<usize> {
    let live = live(&groups(program, &lifetimes(program)).1);
    (0..program.nodes.len()).map(|i| live.get(i + 1).copied().unwrap_or(0)).collect()
}

/// The bytes that are alive at each moment.
fn live(groups: &[Group]) -> Vec<usize> {
    let end = groups.iter().map(|g| g.life.end).max().unwrap_or(0);
    let mut change = vec![0isize; end + 1];
    for s in groups.iter().flat_map(|g| &g.segments) {
        change[s.life.start] += s.bytes.len() as isize;
        change[s.life.end] -= s.bytes.len() as isize;
    }
    let mut live = 0isize;
    let sums = change.iter().map(|change| {
        live += change;
        live as usize
    });
    sums.collect()
}

fn live_peak(groups: &[Group]) -> usize {
    live(groups).into_iter().max().unwrap_or(0)
}

/// Lowest-fit placement in the given order.
fn fit(groups: &[Group], order: &[usize], places: &mut [usize]) -> usize {
    // What is placed, sorted by offset.
    let mut placed: Vec<Segment> = Vec::with_capacity(order.len());
    let mut peak = 0;
    for &g in order {
        let group = &groups[g];
        let mut at = 0;
        loop {
            let before = at;
            for own in &group.segments {
                for other in &placed {
                    if at + own.bytes.end <= other.bytes.start {
                        break;
                    }
                    if own.meets(&other.life) && at + own.bytes.start < other.bytes.end {
                        at = other.bytes.end - own.bytes.start;
                    }
                }
            }
            // One segment was moved past everything in its way; several may have been moved into each other's.
            if at == before || group.segments.len() == 1 {
                break;
            }
        }
        places[g] = at;
        peak = peak.max(at + group.bytes);
        for s in &group.segments {
            let bytes = at + s.bytes.start..at + s.bytes.end;
            let position = placed.partition_point(|p| p.bytes.start <= bytes.start);
            placed.insert(position, Segment { bytes, life: s.life.clone() });
        }
    }
    peak
}

fn place(groups: &[Group], lower_bound: usize) -> (Vec<usize>, usize) {
    let by = |key: fn(&Group) -> [usize; 3]| {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&g| (key(&groups[g]), g));
        order
    };
    const LAST: usize = usize::MAX;
    let orders = [
        by(|g| [LAST - g.bytes, LAST - g.life.len(), g.life.start]),
        by(|g| [LAST - g.life.len(), LAST - g.bytes, g.life.start]),
        by(|g| [LAST - g.bytes * g.life.len(), LAST - g.bytes, g.life.start]),
        by(|g| [g.life.start, LAST - g.bytes, 0]),
        by(|g| [LAST - g.life.end, LAST - g.bytes, 0]),
    ];
    let mut best = (usize::MAX, Vec::new(), Vec::new());
    let mut places = vec![0; groups.len()];
    for order in orders {
        let peak = fit(groups, &order, &mut places);
        if peak < best.0 {
            best = (peak, order, places.clone());
        }
    }
    // Swap pairs of the best order while that helps; the seed is fixed, so a plan is reproducible.
    let random = Stream::new(0);
    let tries = (4_000_000 / (groups.len() * groups.len()).max(1)).min(2_000) as u64;
    let mut order = best.1.clone();
    for i in 0..tries {
        if best.0 <= align(lower_bound) || groups.len() < 2 {
            break;
        }
        let (a, b) = (random.below(2 * i, groups.len() as u32), random.below(2 * i + 1, groups.len() as u32));
        order.swap(a as usize, b as usize);
        let peak = fit(groups, &order, &mut places);
        if peak <= best.0 {
            best = (peak, order.clone(), places.clone());
        } else {
            order.swap(a as usize, b as usize);
        }
    }
    (best.2, if groups.is_empty() { 0 } else { best.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_groups(seed: u64, n: usize) -> Vec<Group> {
        let s = Stream::new(seed);
        (0..n as u64)
            .map(|i| {
                let start = s.below(4 * i, 40) as usize;
                let length = 1 + s.below(4 * i + 1, 8) as usize;
                Group::new(vec![Segment {
                    bytes: 0..1 + s.below(4 * i + 2, 5000) as usize,
                    life: start..start + length,
                }])
            })
            .collect()
    }

    #[test]
    fn placements_never_overlap_and_stay_near_the_bound() {
        for seed in 0..20 {
            let groups = random_groups(seed, 60);
            let bound = live_peak(&groups);
            let (places, peak) = place(&groups, bound);
            for (i, a) in groups.iter().enumerate() {
                assert!(places[i] + a.bytes <= peak && places[i].is_multiple_of(ALIGN));
                for (j, b) in groups.iter().enumerate().skip(i + 1) {
                    let together = a.life.start < b.life.end && b.life.start < a.life.end;
                    let overlap = places[i] < places[j] + b.bytes && places[j] < places[i] + a.bytes;
                    assert!(!(together && overlap), "seed {seed}: {i} and {j}");
                }
            }
            assert!(peak >= bound && peak as f64 <= 1.1 * bound as f64, "seed {seed}: {peak} for a bound of {bound}");
        }
    }

    #[test]
    fn nothing_to_place() {
        assert_eq!(place(&[], 0).1, 0);
    }
}
