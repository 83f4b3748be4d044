//! A reader of `.soft` files written from the description of the format alone: it shares no code
//! with the library's.

/// Element type: its code in a file and what it can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    F32,
    I32,
    I16,
    I8,
    U8,
}

impl Type {
    fn from_code(code: u8) -> Self {
        match code {
            0 => Type::F32,
            1 => Type::I32,
            2 => Type::I16,
            3 => Type::I8,
            4 => Type::U8,
            _ => panic!("element type {code}"),
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Type::F32 | Type::I32 => 4,
            Type::I16 => 2,
            Type::I8 | Type::U8 => 1,
        }
    }

    /// Smallest and largest value.
    pub fn range(self) -> (i64, i64) {
        match self {
            Type::F32 => panic!("a float in an integer model"),
            Type::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Type::I16 => (-32768, 32767),
            Type::I8 => (-128, 127),
            Type::U8 => (0, 255),
        }
    }

    /// Numbers as little-endian bytes.
    pub fn bytes_of(self, numbers: &[i64]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes().into_iter().take(self.bytes())).collect()
    }

    /// Little-endian bytes as numbers.
    pub fn numbers(self, bytes: &[u8]) -> Vec<i64> {
        let (lo, hi) = self.range();
        let number = |element: &[u8]| {
            let value = element.iter().rev().fold(0i64, |value, byte| value * 256 + i64::from(*byte));
            if value > hi { value - (hi - lo + 1) } else { value }
        };
        bytes.chunks_exact(self.bytes()).map(number).collect()
    }
}

pub struct Tensor {
    pub dtype: Type,
    pub len: usize,
    /// The values of a constant.
    pub constant: Option<Vec<i64>>,
    /// Byte offset in the arena, for what is no constant.
    pub offset: usize,
}

/// An op of a file.
pub struct Op {
    pub name: &'static str,
    pub ins: Vec<Option<usize>>,
    pub outs: Vec<Option<usize>>,
    fields: Vec<(&'static str, i64)>,
}

impl Op {
    /// A field of its shape, by name.
    pub fn field(&self, name: &str) -> i64 {
        self.fields.iter().find(|field| field.0 == name).unwrap_or_else(|| panic!("{} has no {name}", self.name)).1
    }

    /// A field that is a count.
    pub fn count(&self, name: &str) -> usize {
        usize::try_from(self.field(name)).unwrap_or_else(|_| panic!("{} of {}", name, self.name))
    }
}

pub struct File {
    /// Bytes of the arena.
    pub arena: usize,
    pub tensors: Vec<Tensor>,
    pub ops: Vec<Op>,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    pub labels: Vec<String>,
}

/// Code, name and fields of every integer op. Fields that are not counts are signed.
const OPS: &[(u16, &str, &str)] = &[
    (60, "InputU8", "rows c zero"),
    (61, "InputI16", "rows c zero"),
    (62, "LinearI8", "rows k n zero lo hi"),
    (63, "LinearI16", "rows k n"),
    (64, "ConvI8", "batch h w c_in c_out kh kw stride_h stride_w pad_h pad_w heads zero_in zero lo hi"),
    (65, "ConvI16", "batch h w c_in c_out kh kw stride_h stride_w pad_h pad_w heads zero_in"),
    (66, "DepthwiseI8", "batch h w c kh kw stride_h stride_w pad_h pad_w share zero_in zero lo hi"),
    (67, "DepthwiseI16", "batch h w c kh kw stride_h stride_w pad_h pad_w share zero_in"),
    (68, "LayerNormI8", "rows c eps shift zero lo hi"),
    (69, "LayerNormI16", "rows c eps shift"),
    (70, "TableI8", "len"),
    (71, "AvgPoolI8", "h w c oh ow"),
    (72, "AvgPoolI16", "h w c oh ow"),
    (73, "MaxPoolI8", "batch h w c kh kw stride_h stride_w"),
    (74, "AddI16", "len ma mb shift"),
    (75, "AddI16I8", "len ma mb shift"),
    (76, "AddI8", "len ma mb offset shift lo hi"),
    (77, "RescaleI16I8", "len multiplier shift zero lo hi"),
    (78, "RescaleI8I16", "len multiplier shift zero_in"),
    (79, "RescaleI8", "len multiplier shift zero_in zero lo hi"),
    (80, "PrependI16", "n c"),
    (81, "TakeI16", "n c index"),
    (82, "TakeI8", "n c index"),
    (83, "SoftmaxAttentionI8", "n heads d multiplier shift out_multiplier out_shift zero lo hi"),
    (84, "GramI8", "m heads d multiplier shift"),
    (85, "InverseNewtonQ22", "heads m iterations ridge"),
    (87, "SymNormQ22", "heads m"),
    (88, "AccumulateI8", "n m heads d multiplier shift w_shift"),
    (89, "ProductQ22", "heads m d"),
    (90, "ApplyI8", "n m heads d multiplier shift out_multiplier out_shift zero lo hi"),
    (91, "GramTriangleI8", "m heads d multiplier shift"),
    (92, "FactorQ26", "heads m ridge"),
    (93, "SolveQ26", "heads m d"),
    (94, "NarrowI16", "heads m d"),
    (95, "SymScaleQ30", "heads m"),
    (96, "LinearI8W4", "rows k n zero lo hi"),
    (97, "LinearI16W4", "rows k n"),
    (98, "ConvI8W4", "batch h w c_in c_out kh kw stride_h stride_w pad_h pad_w heads zero_in zero lo hi"),
    (99, "ConvI16W4", "batch h w c_in c_out kh kw stride_h stride_w pad_h pad_w heads zero_in"),
    (100, "LinearI8W16", "rows k n zero lo hi"),
    (101, "LinearI16W16", "rows k n"),
    (102, "ConvI8W16", "batch h w c_in c_out kh kw stride_h stride_w pad_h pad_w heads zero_in zero lo hi"),
    (103, "ConvI16W16", "batch h w c_in c_out kh kw stride_h stride_w pad_h pad_w heads zero_in"),
];

/// Little-endian words from `at` on.
struct Words<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Words<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.at += N;
        self.bytes[self.at - N..self.at].try_into().unwrap()
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn count(&mut self) -> usize {
        self.word() as usize
    }

    fn counts<const N: usize>(&mut self) -> [usize; N] {
        std::array::from_fn(|_| self.count())
    }
}

/// CRC-32 (IEEE, reflected), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc % 2 == 1 { (crc / 2) ^ 0xedb8_8320 } else { crc / 2 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Reads a file that is known to be good; panics where it is not what the format says.
pub fn parse(bytes: &[u8]) -> File {
    let mut header = Words { bytes, at: 0 };
    assert_eq!(&header.bytes(), b"SOFT", "magic");
    assert_eq!(header.word(), 4, "version, and zero in the high half");
    assert_eq!(header.count(), bytes.len(), "bytes of the file");
    assert_eq!(header.word(), crc32(&bytes[16..]), "CRC of everything after it");
    let [arena, params, grads, state] = header.counts();
    assert_eq!([params, grads, state], [0; 3], "inference needs an arena only");
    let [tensors_at, n_tensors] = header.counts();
    let [ops_at, n_ops, op_words, first_phase] = header.counts();
    assert_eq!(first_phase, n_ops, "inference has one phase");
    let [io_at, n_inputs, n_outputs] = header.counts();
    let [labels_at, labels_bytes, n_labels] = header.counts();
    let [weights_at, weights_bytes] = header.counts();
    let set = u128::from_le_bytes(header.bytes());
    assert_eq!(header.counts(), [0; 6], "reserved words");

    // The sections, in their order.
    assert_eq!(header.at, 128);
    assert_eq!(io_at, 128);
    assert_eq!(tensors_at, io_at + 4 * (n_inputs + n_outputs));
    assert_eq!(ops_at, tensors_at + 32 * n_tensors);
    assert_eq!(labels_at, ops_at + 4 * op_words);
    assert_eq!(weights_at, (labels_at + labels_bytes).next_multiple_of(16));
    assert_eq!(bytes.len(), weights_at + weights_bytes);

    let mut io = Words { bytes, at: io_at };
    let inputs = (0..n_inputs).map(|_| io.count()).collect();
    let outputs = (0..n_outputs).map(|_| io.count()).collect();

    let mut records = Words { bytes, at: tensors_at };
    let tensor = |_| {
        let [dtype, space, rank, layout] = records.bytes();
        let (dtype, offset, dims) = (Type::from_code(dtype), records.count(), records.counts::<4>());
        let (scale, _zero) = (f32::from_bits(records.word()), records.word());
        assert!((1..=4).contains(&rank) && layout == 0 && scale > 0.0);
        assert!(dims[usize::from(rank)..].iter().all(|dim| *dim == 1));
        let len = dims.iter().product();
        let end = offset + len * dtype.bytes();
        assert_eq!(offset % 16, 0);
        // Arena, weights.
        let constant = match space {
            0 => None,
            1 => Some(dtype.numbers(&bytes[weights_at..][offset..end])),
            _ => panic!("space {space} in an inference Program"),
        };
        assert!(end <= if space == 0 { arena } else { weights_bytes });
        Tensor { dtype, len, constant, offset }
    };
    let tensors = (0..n_tensors).map(tensor).collect();

    let mut records = Words { bytes, at: ops_at };
    let mut used = 0u128;
    let op = |_| {
        let code = records.half();
        used |= 1 << code;
        let [n_ins, n_outs] = records.bytes().map(usize::from);
        let mut operands: Vec<Option<usize>> =
            (0..n_ins + n_outs).map(|_| Some(records.half()).filter(|id| *id != 0xffff).map(usize::from)).collect();
        if operands.len() % 2 == 1 {
            records.half();
        }
        let outs = operands.split_off(n_ins);
        let &(_, name, fields) = OPS.iter().find(|op| op.0 == code).unwrap_or_else(|| panic!("op code {code}"));
        let fields = fields.split(' ').map(|field| (field, i64::from(records.word() as i32))).collect();
        Op { name, ins: operands, outs, fields }
    };
    let ops = (0..n_ops).map(op).collect();
    assert_eq!(records.at, labels_at, "the ops end where the labels start");
    assert_eq!(used, set, "the set of op kinds");

    let mut text = Words { bytes, at: labels_at };
    let label = |_| {
        let [len] = text.bytes().map(usize::from);
        text.at += len;
        String::from_utf8(bytes[text.at - len..text.at].to_vec()).unwrap()
    };
    let labels = (0..n_labels).map(label).collect();
    assert_eq!(text.at, labels_at + labels_bytes);

    File { arena, tensors, ops, inputs, outputs, labels }
}
