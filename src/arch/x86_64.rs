//! Wider vectors on x86-64 hosts, chosen once at run time.
#![allow(unsafe_code)]

/// Runs `f` compiled for AVX2 and FMA where the CPU has them. No product and sum are fused unless
/// `f` says `mul_add`, so results do not depend on the choice.
#[inline(always)]
pub(super) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the features were just detected.
        unsafe { avx2(f) }
    } else {
        f()
    }
}

#[target_feature(enable = "avx2,fma")]
fn avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// As [`vectorised`], for AVX-512 where the CPU has it.
#[inline(always)]
pub(super) fn vectorised_wide<R>(f: impl FnOnce() -> R) -> R {
    if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl") {
        // SAFETY: the features were just detected.
        unsafe { avx512(f) }
    } else {
        vectorised(f)
    }
}

#[target_feature(enable = "avx512f,avx512vl")]
fn avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}
