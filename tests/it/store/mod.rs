//! Keys and consumers at run time.
mod backends;
