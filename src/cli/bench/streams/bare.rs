//! The ceiling of every delivery on this machine: a loop for each core that writes whatever it is given to
//! all sockets, one after the other. It keeps nothing, and waits for the slowest.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use serde::Deserialize;

use super::super::fault::Fault;
use super::ear::Kind;
use crate::cli::output;

/// What a loop is told.
enum Order {
    Join(TcpStream, Kind),
    /// An event as a frame of a WebSocket and as a chunk of server-sent events.
    Send(Arc<(Vec<u8>, Vec<u8>)>),
}

/// What of an event its frame repeats.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "type")]
    name: String,
    sequence: String,
}

/// Serves until the standard input ends; the first line of standard output is the address.
pub(super) fn serve() -> Result<(), Fault> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _ = output::print(&listener.local_addr()?.to_string());
    let loops = std::thread::available_parallelism().map_or(2, usize::from);
    let loops: Vec<Sender<Order>> = (0..loops).map(|_| begin_loop()).collect();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let Some(orders) = loops.get(number % loops.len()) else { continue };
            // One after the other: when a writer is welcomed, the loops know every socket before it.
            let _ = welcome(stream, orders, &loops);
        }
    });
    // Whoever started this process holds the other end, so that it cannot outlive him.
    io::stdin().lock().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn begin_loop() -> Sender<Order> {
    let (orders, given) = mpsc::channel();
    std::thread::spawn(move || broadcast(&given));
    orders
}

fn broadcast(given: &Receiver<Order>) {
    let mut sockets: Vec<(TcpStream, Kind)> = Vec::new();
    while let Ok(order) = given.recv() {
        let (mut frames, mut chunks) = (Vec::new(), Vec::new());
        for order in [order].into_iter().chain(given.try_iter()) {
            match order {
                Order::Join(socket, kind) => sockets.push((socket, kind)),
                Order::Send(event) => {
                    frames.extend_from_slice(&event.0);
                    chunks.extend_from_slice(&event.1);
                }
            }
        }
        if !frames.is_empty() {
            sockets.retain_mut(|(socket, kind)| {
                socket.write_all(if *kind == Kind::WebSocket { &frames } else { &chunks }).is_ok()
            });
        }
    }
}

/// Answers the handshake of a listener; serves a writer on a thread of his own.
fn welcome(stream: TcpStream, orders: &Sender<Order>, loops: &[Sender<Order>]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let (first, body) = request(&mut reader)?;
    if !first.starts_with("GET") {
        let loops = loops.to_vec();
        std::thread::spawn(move || take_events(reader, body, &loops));
        return Ok(());
    }
    let mut stream = reader.into_inner();
    let (kind, head) = if first.contains("/stream") {
        (Kind::ServerSent, "200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked")
    } else {
        (Kind::WebSocket, "101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade")
    };
    write!(stream, "HTTP/1.1 {head}\r\n\r\n")?;
    orders.send(Order::Join(stream, kind)).map_err(io::Error::other)
}

/// Has every event that a writer sends broadcast.
fn take_events(mut reader: BufReader<TcpStream>, first: Vec<u8>, loops: &[Sender<Order>]) -> io::Result<()> {
    let mut json = first;
    loop {
        let framed = Arc::new(framed(&json)?);
        for orders in loops {
            orders.send(Order::Send(Arc::clone(&framed))).map_err(io::Error::other)?;
        }
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
        json = request(&mut reader)?.1;
    }
}

/// An event as Photon sends it.
fn framed(json: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let Named { name, sequence } = serde_json::from_slice(json)?;
    let len = u16::try_from(json.len()).map_err(io::Error::other)?;
    let head: &[u8] = if len < 126 { &[len as u8] } else { &[&[126], &len.to_be_bytes()[..]].concat() };
    let frame = [&[0x81], head, json].concat();
    let head = format!("id: {sequence}\nevent: {name}\ndata: ");
    let mut chunk = format!("{:X}\r\n{head}", head.len() + json.len() + 2).into_bytes();
    chunk.extend_from_slice(json);
    chunk.extend_from_slice(b"\n\n\r\n");
    Ok((frame, chunk))
}

/// The first line and the body of the next request.
fn request(reader: &mut BufReader<TcpStream>) -> io::Result<(String, Vec<u8>)> {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(stated) = line.strip_prefix("Content-Length:") {
            length = stated.trim().parse().map_err(io::Error::other)?;
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((first, body))
}

#[cfg(test)]
mod tests {
    use super::super::ear::{chunk, frame};
    use super::*;

    #[test]
    fn a_listener_reads_the_bare_frames_as_those_of_photon() {
        for padding in ["", &"x".repeat(300)] {
            let json = format!(r#"{{"type":"a.b","sequence":"7","data":"{padding}"}}"#);
            let (framed, chunked) = framed(json.as_bytes()).unwrap();
            assert_eq!(frame(&framed).unwrap().unwrap().payload, json.as_bytes());
            let text = format!("id: 7\nevent: a.b\ndata: {json}\n\n");
            assert_eq!(chunk(&chunked).unwrap().unwrap().payload, text.as_bytes());
        }
    }
}
