//! The model check: three brokers and a controller, every order of what may happen to them. It is all in
//! `tests/replication`; this is only the package that it belongs to, so that the checker it takes is built for nobody
//! else.
