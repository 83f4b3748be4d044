//! fake_quant
