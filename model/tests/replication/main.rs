//! A model checker over the cores that production runs: `weir-replication` leads and follows, `weir-metadata` decides
//! who is in sync and who leads. Around them is as little as a broker needs (`node.rs`, `disk.rs`), a network that
//! loses, delays, repeats and reorders (`wire.rs`), and everything that may go wrong (`faults.rs`). What must hold
//! whatever happens has a file each in `properties/`.
//!
//! `exhaustive.rs` goes through every state of small worlds, `random.rs` walks through large ones, and `mutants.rs`
//! takes out one rule at a time, which must be noticed. `cargo xtask model` runs them all, with `--deep` further.

#[cfg(test)]
mod bug;
#[cfg(test)]
mod check;
#[cfg(test)]
mod config;
#[cfg(test)]
mod controller;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod node;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod random;
#[cfg(test)]
mod step;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;
#[cfg(test)]
mod worlds;
