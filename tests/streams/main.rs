//! Streams of events: sockets and server-sent events, their protocol and readers, and a large operation.

mod event_stream;
mod fan_out;
mod silent_socket;
mod stream_resume;
mod stream_stall;
#[path = "../support/mod.rs"]
mod support;
mod websocket;
