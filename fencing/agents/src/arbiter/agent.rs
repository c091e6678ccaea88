//! The arbiter as a fencing method.

use std::sync::Arc;

use mx_base::BoxFuture;

use fencing::{Answer, DeviceId, FenceAgent, FenceRequest};

use super::client::Client;

/// Fences from one device, through the session of this node.
#[derive(Debug)]
pub struct ArbiterAgent {
    client: Arc<Client>,
    device: DeviceId,
}

impl ArbiterAgent {
    /// `device` is what the client's arbiter serves.
    pub fn new(client: Arc<Client>, device: DeviceId) -> ArbiterAgent {
        ArbiterAgent { client, device }
    }
}

impl FenceAgent for ArbiterAgent {
    fn name(&self) -> &str {
        "arbiter"
    }

    fn fence(&self, request: FenceRequest) -> BoxFuture<'static, Answer> {
        if request.device != self.device {
            let reason = format!("this arbiter serves {}, not {}", self.device, request.device);
            return Box::pin(std::future::ready(Answer::Unsupported { reason }));
        }
        let done = self.client.fence(request.victim);
        Box::pin(async move {
            match done.await {
                Ok(()) => Answer::Verified,
                Err(error) => Answer::Failed { reason: error.to_string() },
            }
        })
    }
}
