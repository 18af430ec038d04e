//! A controller and brokers in this process, each on a disk in memory: what a broker makes of the metadata, when
//! everything is as it should be and when it is not. (`cfg(test)`, so that the lints know that these are tests.)

#[cfg(test)]
mod accepted;
#[cfg(test)]
mod asked;
#[cfg(test)]
mod broken;
#[cfg(test)]
mod copied;
#[cfg(test)]
mod deleted;
#[cfg(test)]
mod elsewhere;
#[cfg(test)]
mod gone;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod retried;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod support;
#[cfg(test)]
mod unreadable;
#[cfg(test)]
mod work;
