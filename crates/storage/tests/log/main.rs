//! The log from outside, on a disk in memory. (`cfg(test)`, so that the lints know that these are tests.)

#[cfg(test)]
mod anew;
#[cfg(test)]
mod aside;
#[cfg(test)]
mod basics;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod cut_off;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod deleting;
#[cfg(test)]
mod epochs;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod flushing;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod handles;
#[cfg(test)]
mod leftovers;
#[cfg(test)]
mod let_go;
#[cfg(test)]
mod missing;
#[cfg(test)]
mod model;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod pace;
#[cfg(test)]
mod panics;
#[cfg(test)]
mod producers;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod replica;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod retention;
#[cfg(test)]
#[cfg(test)]
mod start_over;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod strays;
#[cfg(test)]
mod support;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod torn;
#[cfg(test)]
mod twins;
