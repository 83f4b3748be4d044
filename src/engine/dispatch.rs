//! From the kind of an op to the function that runs it, for the kinds that are compiled in.

/// One arm per kind: decodes the shape, binds the operands in order, calls the op.
///
/// `Kind: function(operands)`; `in_place` drops the first input, `random` also passes the counters.
macro_rules! dispatch {
    ($S:ident, $kind:ident, $words:ident, $operands:ident, $tick:ident;
     $($Kind:ident: $($module:ident)::+($($operand:ident),*) $(@ $how:ident)?;)*) => {
        match $kind {
            $(Kind::$Kind if const { $S::OPS.contains(Kind::$Kind) } => {
                if let Op::$Kind(shape) = Op::decode(Kind::$Kind, $words) {
                    dispatch!(@call $operands, $tick, $($module)::+, shape, ($($operand),*) $($how)?);
                }
                true
            })*
            _ => false,
        }
    };
    (@call $o:ident, $tick:ident, $f:path, $s:ident, ($($operand:ident),*)) => {
        $f(&$s, $($o.$operand()),*)
    };
    (@call $o:ident, $tick:ident, $f:path, $s:ident, ($($operand:ident),*) in_place) => {{
        $o.take_over(true);
        $f(&$s, $($o.$operand()),*)
    }};
    (@call $o:ident, $tick:ident, $f:path, $s:ident, ($($operand:ident),*) random) => {{
        $o.take_over(true);
        $f(&$s, $tick, $($o.$operand()),*)
    }};
}
pub(super) use dispatch;
