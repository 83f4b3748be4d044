//! The op table: every kind of op there is, its code in a file and its shape.
//!
//! Codes are part of the file format: they are never reused, and a new variant of an op (another
//! weight width, another kind of inverse) is a new code. A firmware names the set of codes it runs.

use crate::ops::*;

macro_rules! op_table {
    ($($code:literal $Kind:ident = $module:ident::$Shape:ident,)*) => {
        /// The kind of an op: its code in a file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[repr(u16)]
        pub enum Kind {
            $(#[doc = concat!("[`", stringify!($module), "::", stringify!($Shape), "`](crate::ops::", stringify!($module), "::", stringify!($Shape), ")")] $Kind = $code,)*
        }

        impl Kind {
            /// All kinds, in the order of their codes.
            pub const ALL: &'static [Kind] = &[$(Kind::$Kind),*];

            /// The kind with this code, if there is one.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Kind::$Kind),)*
                    _ => None,
                }
            }

            /// Name of the op.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$Kind => stringify!($Kind),)*
                }
            }

            /// Words its shape takes in a file.
            pub const fn words(self) -> usize {
                match self {
                    $(Kind::$Kind => $module::$Shape::WORDS,)*
                }
            }

            /// Names of the fields of its shape.
            pub const fn fields(self) -> &'static [&'static str] {
                match self {
                    $(Kind::$Kind => &$module::$Shape::FIELDS,)*
                }
            }
        }

        /// An op with its shape.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op {
            $($Kind($module::$Shape),)*
        }

        impl Op {
            /// The op of this kind whose shape is stored in `words` ([`Kind::words`] of them).
            // Inlined, a known kind leaves its own arm: a firmware has no code for the shapes of all others.
            #[inline(always)]
            pub const fn decode(kind: Kind, words: &[u32]) -> Self {
                match kind {
                    $(Kind::$Kind => Op::$Kind($module::$Shape::from_words(words)),)*
                }
            }

            /// As [`decode`](Self::decode) and [`signature`](Self::signature) for a kind that `S` runs, without the
            /// code of all others.
            pub(crate) const fn decode_for<S: Runs>(kind: Kind, words: &[u32]) -> Option<(Self, Signature)> {
                match kind {
                    $(Kind::$Kind if const { S::OPS.contains(Kind::$Kind) } => {
                        let shape = $module::$Shape::from_words(words);
                        Some((Op::$Kind(shape), shape.signature()))
                    })*
                    _ => None,
                }
            }

            /// Its kind.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Op::$Kind(_) => Kind::$Kind,)*
                }
            }

            /// What it expects of its operands.
            pub const fn signature(&self) -> Signature {
                match self {
                    $(Op::$Kind(s) => s.signature(),)*
                }
            }

            /// Multiply-accumulates of one execution.
            pub const fn macs(&self) -> u64 {
                match self {
                    $(Op::$Kind(s) => s.macs(),)*
                }
            }

            /// Hands the words that store its shape to `write`.
            pub fn encode(&self, mut write: impl FnMut(u32)) {
                match self {
                    $(Op::$Kind(s) => s.to_words().into_iter().for_each(&mut write),)*
                }
            }
        }

        $(
            impl From<$module::$Shape> for Op {
                fn from(shape: $module::$Shape) -> Self {
                    Op::$Kind(shape)
                }
            }
        )*
    };
}

op_table! {
    1 Linear = linear::Linear,
    2 LinearGrad = linear::LinearGrad,
    3 Conv = conv::Conv,
    4 ConvGrad = conv::ConvGrad,
    5 Depthwise = depthwise::Depthwise,
    6 DepthwiseGrad = depthwise::DepthwiseGrad,
    7 BatchNorm = batch_norm::BatchNorm,
    8 BatchNormGrad = batch_norm::BatchNormGrad,
    9 BatchNormEval = batch_norm::BatchNormEval,
    10 BatchNormEvalGrad = batch_norm::BatchNormEvalGrad,
    11 RunningUpdate = batch_norm::RunningUpdate,
    12 LayerNorm = layer_norm::LayerNorm,
    13 LayerNormGrad = layer_norm::LayerNormGrad,
    14 GeluTanh = gelu::GeluTanh,
    15 GeluTanhGrad = gelu::GeluTanhGrad,
    16 GeluErf = gelu::GeluErf,
    17 GeluErfGrad = gelu::GeluErfGrad,
    18 Relu = relu::Relu,
    19 ReluGrad = relu::ReluGrad,
    20 AvgPool = pool::AvgPool,
    21 AvgPoolGrad = pool::AvgPoolGrad,
    22 MaxPool = pool::MaxPool,
    23 MaxPoolGrad = pool::MaxPoolGrad,
    24 Add = add::Add,
    25 AddBroadcast = add::AddBroadcast,
    26 AddBroadcastGrad = add::AddBroadcastGrad,
    27 Scale = scale::Scale,
    28 Normalise = normalise::Normalise,
    29 Resize = resize::Resize,
    30 ResizeGrad = resize::ResizeGrad,
    31 Prepend = tokens::Prepend,
    32 PrependGrad = tokens::PrependGrad,
    33 Take = tokens::Take,
    34 TakeGrad = tokens::TakeGrad,
    35 SoftmaxAttention = softmax_attention::SoftmaxAttention,
    36 SoftmaxAttentionGrad = softmax_attention::SoftmaxAttentionGrad,
    37 Gram = gram::Gram,
    38 GramGrad = gram::GramGrad,
    39 InverseNewton = inverse::InverseNewton,
    40 InverseLdlt = inverse::InverseLdlt,
    41 InverseGrad = inverse::InverseGrad,
    42 SymNorm = sym_norm::SymNorm,
    43 SymNormGrad = sym_norm::SymNormGrad,
    44 KernelAccumulate = kernel::KernelAccumulate,
    45 KernelAccumulateGrad = kernel::KernelAccumulateGrad,
    46 KernelApply = kernel::KernelApply,
    47 KernelApplyGrad = kernel::KernelApplyGrad,
    48 Product = product::Product,
    49 ProductGrad = product::ProductGrad,
    50 CrossEntropy = cross_entropy::CrossEntropy,
    51 CrossEntropyGrad = cross_entropy::CrossEntropyGrad,
    52 Dropout = dropout::Dropout,
    53 DropPath = dropout::DropPath,
    54 FakeQuant = fake_quant::FakeQuant,
    55 FakeQuantGrad = fake_quant::FakeQuantGrad,
    56 FakeQuantWeights = fake_quant::FakeQuantWeights,
    57 ClipScale = adamw::ClipScale,
    58 AdamW = adamw::AdamW,
    59 Ema = adamw::Ema,
    60 InputU8 = input::InputU8,
    61 InputI16 = input::InputI16,
    62 LinearI8 = linear::LinearI8,
    63 LinearI16 = linear::LinearI16,
    64 ConvI8 = conv::ConvI8,
    65 ConvI16 = conv::ConvI16,
    66 DepthwiseI8 = depthwise::DepthwiseI8,
    67 DepthwiseI16 = depthwise::DepthwiseI16,
    68 LayerNormI8 = layer_norm::LayerNormI8,
    69 LayerNormI16 = layer_norm::LayerNormI16,
    70 TableI8 = table::TableI8,
    71 AvgPoolI8 = pool::AvgPoolI8,
    72 AvgPoolI16 = pool::AvgPoolI16,
    73 MaxPoolI8 = pool::MaxPoolI8,
    74 AddI16 = add::AddI16,
    75 AddI16I8 = add::AddI16I8,
    76 AddI8 = add::AddI8,
    77 RescaleI16I8 = rescale::RescaleI16I8,
    78 RescaleI8I16 = rescale::RescaleI8I16,
    79 RescaleI8 = rescale::RescaleI8,
    80 PrependI16 = tokens::PrependI16,
    81 TakeI16 = tokens::TakeI16,
    82 TakeI8 = tokens::TakeI8,
    83 SoftmaxAttentionI8 = softmax_attention::SoftmaxAttentionI8,
    84 GramI8 = gram::GramI8,
    85 InverseNewtonQ22 = inverse::InverseNewtonQ22,
    87 SymNormQ22 = sym_norm::SymNormQ22,
    88 AccumulateI8 = kernel::AccumulateI8,
    89 ProductQ22 = product::ProductQ22,
    90 ApplyI8 = kernel::ApplyI8,
    91 GramTriangleI8 = gram::GramTriangleI8,
    92 FactorQ26 = solve::FactorQ26,
    93 SolveQ26 = solve::SolveQ26,
    94 NarrowI16 = solve::NarrowI16,
    95 SymScaleQ30 = sym_norm::SymScaleQ30,
    96 LinearI8W4 = linear::LinearI8W4,
    97 LinearI16W4 = linear::LinearI16W4,
    98 ConvI8W4 = conv::ConvI8W4,
    99 ConvI16W4 = conv::ConvI16W4,
    100 LinearI8W16 = linear::LinearI8W16,
    101 LinearI16W16 = linear::LinearI16W16,
    102 ConvI8W16 = conv::ConvI8W16,
    103 ConvI16W16 = conv::ConvI16W16,
}

/// What one accumulator of a requantising op sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulator {
    /// Products of int8 with a weight.
    pub products: u64,
    /// Width of the weights.
    pub weights: Width,
}

impl Op {
    /// What an accumulator sums, of a requantising op: its inputs 1 to 4 are weights, and bias, multiplier and
    /// shift per output channel.
    pub const fn accumulator(&self) -> Option<Accumulator> {
        const fn of(weights: Width, dims: &[usize]) -> Option<Accumulator> {
            Some(Accumulator { products: size(dims), weights })
        }
        match self {
            Op::LinearI8(s) => of(Width::Int8, &[s.k]),
            Op::LinearI16(s) => of(Width::Int8, &[s.k]),
            Op::ConvI8(s) => of(Width::Int8, &[s.kh, s.kw, s.c_in]),
            Op::ConvI16(s) => of(Width::Int8, &[s.kh, s.kw, s.c_in]),
            Op::DepthwiseI8(s) => of(Width::Int8, &[s.kh, s.kw]),
            Op::DepthwiseI16(s) => of(Width::Int8, &[s.kh, s.kw]),
            Op::LinearI8W4(s) => of(Width::Int4, &[s.k]),
            Op::LinearI16W4(s) => of(Width::Int4, &[s.k]),
            Op::ConvI8W4(s) => of(Width::Int4, &[s.kh, s.kw, s.c_in]),
            Op::ConvI16W4(s) => of(Width::Int4, &[s.kh, s.kw, s.c_in]),
            Op::LinearI8W16(s) => of(Width::Int16, &[s.k]),
            Op::LinearI16W16(s) => of(Width::Int16, &[s.k]),
            Op::ConvI8W16(s) => of(Width::Int16, &[s.kh, s.kw, s.c_in]),
            Op::ConvI16W16(s) => of(Width::Int16, &[s.kh, s.kw, s.c_in]),
            // Written out, so that no new kind escapes the check by being forgotten.
            Op::Linear(_)
            | Op::LinearGrad(_)
            | Op::Conv(_)
            | Op::ConvGrad(_)
            | Op::Depthwise(_)
            | Op::DepthwiseGrad(_)
            | Op::BatchNorm(_)
            | Op::BatchNormGrad(_)
            | Op::BatchNormEval(_)
            | Op::BatchNormEvalGrad(_)
            | Op::RunningUpdate(_)
            | Op::LayerNorm(_)
            | Op::LayerNormGrad(_)
            | Op::GeluTanh(_)
            | Op::GeluTanhGrad(_)
            | Op::GeluErf(_)
            | Op::GeluErfGrad(_)
            | Op::Relu(_)
            | Op::ReluGrad(_)
            | Op::AvgPool(_)
            | Op::AvgPoolGrad(_)
            | Op::MaxPool(_)
            | Op::MaxPoolGrad(_)
            | Op::Add(_)
            | Op::AddBroadcast(_)
            | Op::AddBroadcastGrad(_)
            | Op::Scale(_)
            | Op::Normalise(_)
            | Op::Resize(_)
            | Op::ResizeGrad(_)
            | Op::Prepend(_)
            | Op::PrependGrad(_)
            | Op::Take(_)
            | Op::TakeGrad(_)
            | Op::SoftmaxAttention(_)
            | Op::SoftmaxAttentionGrad(_)
            | Op::Gram(_)
            | Op::GramGrad(_)
            | Op::InverseNewton(_)
            | Op::InverseLdlt(_)
            | Op::InverseGrad(_)
            | Op::SymNorm(_)
            | Op::SymNormGrad(_)
            | Op::KernelAccumulate(_)
            | Op::KernelAccumulateGrad(_)
            | Op::KernelApply(_)
            | Op::KernelApplyGrad(_)
            | Op::Product(_)
            | Op::ProductGrad(_)
            | Op::CrossEntropy(_)
            | Op::CrossEntropyGrad(_)
            | Op::Dropout(_)
            | Op::DropPath(_)
            | Op::FakeQuant(_)
            | Op::FakeQuantGrad(_)
            | Op::FakeQuantWeights(_)
            | Op::ClipScale(_)
            | Op::AdamW(_)
            | Op::Ema(_)
            | Op::InputU8(_)
            | Op::InputI16(_)
            | Op::LayerNormI8(_)
            | Op::LayerNormI16(_)
            | Op::TableI8(_)
            | Op::AvgPoolI8(_)
            | Op::AvgPoolI16(_)
            | Op::MaxPoolI8(_)
            | Op::AddI16(_)
            | Op::AddI16I8(_)
            | Op::AddI8(_)
            | Op::RescaleI16I8(_)
            | Op::RescaleI8I16(_)
            | Op::RescaleI8(_)
            | Op::PrependI16(_)
            | Op::TakeI16(_)
            | Op::TakeI8(_)
            | Op::SoftmaxAttentionI8(_)
            | Op::GramI8(_)
            | Op::InverseNewtonQ22(_)
            | Op::SymNormQ22(_)
            | Op::AccumulateI8(_)
            | Op::ProductQ22(_)
            | Op::ApplyI8(_)
            | Op::GramTriangleI8(_)
            | Op::FactorQ26(_)
            | Op::SolveQ26(_)
            | Op::NarrowI16(_)
            | Op::SymScaleQ30(_) => None,
        }
    }
}

/// A set of op kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OpSet(u128);

impl OpSet {
    /// No op.
    pub const EMPTY: Self = Self(0);

    /// Every op there is.
    pub const ALL: Self = {
        let mut set = Self::EMPTY;
        let mut i = 0;
        while i < Kind::ALL.len() {
            set = set.with(Kind::ALL[i]);
            i += 1;
        }
        set
    };

    /// Every op of integer inference: what a quantised model can need. Carries no float arithmetic.
    pub const INTEGERS: Self = {
        let first = Kind::InputU8 as u16;
        Self(Self::ALL.0 >> first << first)
    };

    /// The set with these bits, one per code.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits, one per code.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The set with `kind` in it.
    pub const fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    /// The set of the kinds in either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 >> kind as u16 & 1 == 1
    }
}

/// The set of op kinds that something is compiled for.
pub trait Runs {
    /// The kinds it runs; the code of all others is dropped by the compiler.
    const OPS: OpSet;
}

/// Every op there is: what a host runs.
#[derive(Clone, Copy, Debug)]
pub enum Every {}

impl Runs for Every {
    const OPS: OpSet = OpSet::ALL;
}

/// Every op of integer inference: what firmware runs that takes its models at run time.
#[derive(Clone, Copy, Debug)]
pub enum Integers {}

impl Runs for Integers {
    const OPS: OpSet = OpSet::INTEGERS;
}

const _: () = assert!(Kind::ALL[Kind::ALL.len() - 1] as u16 <= 127, "OpSet has 128 bits");
