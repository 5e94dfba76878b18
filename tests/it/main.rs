//! The gateway as its users meet it: the real executable, real sockets, upstreams written here.
//! One binary, so that it links once. Each test has its own gateway, ports and folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "in a test a panic is the report"
)]
#![allow(
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tables of cases are long, some are printed, and their numbers are small"
)]

mod acme;
mod admin;
mod auth;
mod authorize;
mod cache;
mod cache_disk;
mod cache_promises;
mod cli;
mod compress;
mod cors;
mod demo;
mod exhaustion;
mod external;
mod floods;
mod framing;
mod grpc;
mod hardening;
mod harness;
mod headers;
mod hostile;
mod http2;
mod introspection;
mod json_bodies;
mod jwt;
mod limits;
mod llm;
mod mcp;
mod mcp_rest;
mod metadata;
mod mirror;
mod mtls;
mod oidc;
mod pages;
mod provider;
mod proxy_protocol;
mod reload;
mod routing;
mod seams;
mod secrets;
mod signature;
mod signature_body;
mod slow;
mod store;
mod support;
mod suspects;
mod telemetry;
mod timeouts;
mod tls;
mod tls_files;
mod tracing;
mod transform;
mod unix;
mod upgrade;
mod upstream;
mod upstream_faults;
mod upstream_tls;
mod upstream_tokens;
