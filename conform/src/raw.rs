//! A call as bytes: for requests that no generated client would make, and for whoever stands between a caller and a driver.

use http_body_util::{BodyExt, Full};
use prost::bytes::{BufMut, Bytes, BytesMut};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::call::Wire;

/// Puts a message into gRPC's frame.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// Takes messages out of their frames; what is cut off is left out.
pub fn unframe(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some((message, rest)) = rest.split_at_checked(length) else {
            break;
        };
        messages.push(message.to_vec());
        bytes = rest;
    }
    messages
}

/// Calls a method by its path (`/csi.v1.Identity/Probe`) with an encoded message. Gives the encoded answers: one, or those of a stream.
///
/// # Errors
/// What the driver answered, or what the wire made of it.
pub async fn raw(wire: Wire, path: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, Status> {
    let request = http::Request::post(format!("http://driver{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(frame(message)).map_err(|never| match never {})));
    let request = request.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let response = wire.oneshot(request).await?;
    read(response).await
}

/// Reads a whole answer: its messages, or its status.
///
/// # Errors
/// The status.
pub async fn read(response: http::Response<Body>) -> Result<Vec<Vec<u8>>, Status> {
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let body = response.into_body().collect().await?;
    let trailers = body.trailers().cloned();
    let messages = unframe(&body.to_bytes());
    match trailers.as_ref().and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) => Ok(messages),
        None => Err(Status::unavailable("the answer was cut off")),
    }
}
