// What runs in the container: counts its own starts in a file, hangs after the first start and works after the next.
// Compiled static by the test, so that the image holds this one file.
use std::fs::{OpenOptions, read_to_string};
use std::io::{Read, Write};
use std::net::TcpListener;

fn main() {
    let port = std::env::args().nth(1).expect("a port");
    // What the image's health check runs: it lives, so it is well.
    if port == "well" {
        return;
    }
    let mut file = OpenOptions::new().create(true).append(true).open("/starts").expect("a file");
    file.write_all(b"x").expect("written");
    let starts = read_to_string("/starts").expect("read").len();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a free port");
    let mut tokens = 0;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.read(&mut [0; 1024]);
        tokens += if starts > 1 { 100 } else { 0 };
        let body = format!("starts {starts}\ntokens {tokens}\n");
        let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}
