//! The element types of raw inputs and scores.

use crate::ops::DType;

/// An element type by its code in a file.
#[derive(Clone, Copy, Debug)]
pub enum Raw<const CODE: u8> {}

/// Maps [`Raw`] to the Rust type.
pub trait ElementOf {
    /// The type.
    type Type: Element;
}

/// A type that a tensor of raw input or of scores may have.
pub trait Element: Copy + Into<f64> + PartialOrd + 'static + sealed::Sealed {
    /// Its code.
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($code:literal $ty:ty = $dtype:ident;)*) => {$(
        impl ElementOf for Raw<$code> {
            type Type = $ty;
        }
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    0 f32 = F32;
    1 i32 = I32;
    2 i16 = I16;
    3 i8 = I8;
    4 u8 = U8;
}
