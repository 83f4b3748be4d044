//! Where a sliding window lies on its input, along one axis.

/// A kernel sliding along one axis of an image.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    /// Inputs along the axis.
    pub size: usize,
    /// Taps of the kernel.
    pub kernel: usize,
    /// Inputs between neighbouring windows.
    pub stride: usize,
    /// Padding before the first input and after the last.
    pub pad: usize,
}

/// Positions that meet: the `i`-th of `len` is position `at + i` of a tensor and tap
/// `tap + i * step` of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Overlap {
    pub at: usize,
    pub len: usize,
    tap: usize,
    step: isize,
}

impl Overlap {
    /// The tap that meets position `at + i`.
    #[inline(always)]
    pub fn tap(&self, i: usize) -> usize {
        self.tap.wrapping_add_signed(self.step * i as isize)
    }

    /// Whether tap `k` of a window meets an input.
    #[inline(always)]
    pub fn has_tap(&self, k: usize) -> bool {
        k.wrapping_sub(self.tap) < self.len
    }
}

impl Axis {
    /// Why the axis makes no sense, if it does not.
    pub const fn reason(&self) -> Option<&'static str> {
        if self.size == 0 || self.kernel == 0 || self.stride == 0 {
            Some("an image, kernel or stride of size 0")
        } else if self.pad >= self.kernel {
            Some("padding as wide as the kernel")
        } else if self.padded() < self.kernel {
            Some("a kernel larger than the padded image")
        } else {
            None
        }
    }

    /// Saturates only where the input or the kernel would not fit the address space.
    const fn padded(&self) -> usize {
        self.pad.saturating_mul(2).saturating_add(self.size)
    }

    /// Number of windows; 0 where [`reason`](Self::reason) gives one.
    pub const fn windows(&self) -> usize {
        if self.reason().is_some() { 0 } else { (self.padded() - self.kernel) / self.stride + 1 }
    }

    /// Window `o` on the input: the inputs it covers and the taps that read them.
    #[inline(always)]
    pub fn inputs(&self, o: usize) -> Overlap {
        let start = o * self.stride;
        let tap = self.pad.saturating_sub(start);
        let end = (self.size + self.pad).saturating_sub(start).min(self.kernel);
        Overlap { at: start + tap - self.pad, len: end.saturating_sub(tap), tap, step: 1 }
    }

    /// The windows that cover input `i`, and the taps with which they read it.
    #[inline(always)]
    pub fn windows_over(&self, i: usize) -> Overlap {
        let i = i + self.pad;
        let first = (i + 1).saturating_sub(self.kernel).div_ceil(self.stride);
        let end = (i / self.stride + 1).min(self.windows());
        Overlap {
            at: first,
            len: end.saturating_sub(first),
            tap: i.wrapping_sub(first * self.stride),
            // Where two windows meet, the stride is small.
            step: (self.stride as isize).wrapping_neg(),
        }
    }

    /// The windows whose tap `k` reads an input: the first window, the input it reads there (the
    /// next are `stride` apart) and the number of windows.
    #[inline(always)]
    pub fn windows_of_tap(&self, k: usize) -> (usize, usize, usize) {
        let first = self.pad.saturating_sub(k).div_ceil(self.stride);
        let end = match (self.size + self.pad).checked_sub(k + 1) {
            Some(last) => (last / self.stride + 1).min(self.windows()),
            None => 0,
        };
        (first, (first * self.stride).saturating_add(k).saturating_sub(self.pad), end.saturating_sub(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// All (window, tap, input) triples that meet.
    fn meetings(a: &Axis) -> Vec<(usize, usize, usize)> {
        let mut all = Vec::new();
        for o in 0..a.windows() {
            for k in 0..a.kernel {
                if let Some(i) = (o * a.stride + k).checked_sub(a.pad).filter(|&i| i < a.size) {
                    all.push((o, k, i));
                }
            }
        }
        all
    }

    #[test]
    fn the_three_views_agree_with_counting() {
        for size in 1..8 {
            for (kernel, stride, pad) in
                [(1, 1, 0), (2, 2, 0), (3, 1, 1), (3, 2, 1), (5, 3, 2), (2, 4, 1), (7, 1, 3), (3, 5, 2)]
            {
                let a = Axis { size, kernel, stride, pad };
                let want = meetings(&a);
                let mut by_window = Vec::new();
                for o in 0..a.windows() {
                    let m = a.inputs(o);
                    by_window.extend((0..m.len).map(|i| (o, m.tap(i), m.at + i)));
                    for k in 0..kernel {
                        assert_eq!(m.has_tap(k), want.iter().any(|&(window, tap, _)| (window, tap) == (o, k)));
                    }
                }
                assert_eq!(by_window, want, "{size} {kernel} {stride} {pad}");
                let mut by_input = Vec::new();
                let mut by_tap = Vec::new();
                if a.windows() > 0 {
                    for i in 0..size {
                        let m = a.windows_over(i);
                        by_input.extend((0..m.len).map(|o| (m.at + o, m.tap(o), i)));
                    }
                    for k in 0..kernel {
                        let (first, at, len) = a.windows_of_tap(k);
                        by_tap.extend((0..len).map(|o| (first + o, k, at + o * stride)));
                    }
                }
                by_input.sort();
                by_tap.sort();
                assert_eq!(by_input, want, "{size} {kernel} {stride} {pad}");
                assert_eq!(by_tap, want, "{size} {kernel} {stride} {pad}");
            }
        }
    }

    /// On a 32-bit core a file can hold such strides.
    #[test]
    fn a_stride_may_be_as_large_as_the_address_space() {
        for stride in [usize::MAX, isize::MIN as usize, isize::MAX as usize] {
            let a = Axis { size: 4, kernel: 3, stride, pad: 2 };
            let first = a.windows_over(0);
            assert_eq!((first.at, first.len, first.tap(0)), (0, 1, 2));
            assert_eq!(a.windows_over(3).len, 0);
            assert_eq!([0, 1, 2].map(|tap| a.windows_of_tap(tap).2), [0, 0, 1]);
        }
    }

    #[test]
    fn absurd_axes_have_a_reason_and_no_windows() {
        let huge = u32::MAX as usize;
        for (size, kernel, stride, pad) in
            [(0, 1, 1, 0), (4, 0, 1, 0), (4, 1, 0, 0), (4, 2, 1, 2), (4, 5, 1, 0), (huge, huge, 0, huge)]
        {
            let a = Axis { size, kernel, stride, pad };
            assert!(a.reason().is_some());
            assert_eq!(a.windows(), 0);
        }
    }
}
