//! Our client for third parties as the one that the ACME library speaks through.
use std::{future::Future, future::poll_fn, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::shared::http_client::{Client, Request, endpoint};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer: a chain is some kilobytes.
const ANSWER: usize = 1 << 20;

pub struct Http(pub Client);

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            // The directory names the others: none of them may be spoken to in the clear.
            let url = endpoint(&parts.uri.to_string()).map_err(other)?;
            let sent = Request {
                method: parts.method,
                url,
                headers: parts.headers,
                body: whole(body).await,
                timeout: TIMEOUT,
                most_bytes: ANSWER,
            };
            let answer = client.send(sent).await.map_err(|why| other(why.to_string()))?;
            let mut response = http::Response::new(()).into_parts().0;
            (response.status, response.headers) = (answer.status, answer.headers);
            Ok(BytesResponse { parts: response, body: Box::new(answer.body) })
        })
    }
}

async fn whole(mut body: BodyWrapper<Bytes>) -> Bytes {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.freeze()
}

fn other(why: String) -> Error {
    Error::Other(why.into())
}
