//! One connection's life: heads in, responses out, deadlines, limits.

mod settings;

pub use settings::Limits;
