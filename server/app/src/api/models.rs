//! `pith.v1.Models`: what is served, and how busy it is.

use pith_engine::Engine;
use pith_proto::v1;
use pith_proto::v1::models_server::Models;
use tonic::{Request, Response, Status};

use super::Api;
use crate::boot::Served;

#[tonic::async_trait]
impl Models for Api {
    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = match self.serving.ready() {
            Some(served) => vec![model(&served)],
            // Still loading: its name is all there is to tell.
            None => vec![v1::Model { name: self.serving.asked().to_owned(), ..Default::default() }],
        };
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn get_load(
        &self,
        request: Request<v1::GetLoadRequest>,
    ) -> Result<Response<v1::GetLoadResponse>, Status> {
        let served = self.serving.find(&request.get_ref().model)?;
        let count = |figure: usize| u32::try_from(figure).unwrap_or(u32::MAX);
        Ok(Response::new(v1::GetLoadResponse {
            loads: vec![load(&served.name, &served.engine)],
            in_flight_requests: count(self.admission.in_flight()),
            max_in_flight_requests: count(self.admission.limit()),
        }))
    }
}

fn model(served: &Served) -> v1::Model {
    let plan = served.file.plan();
    let capabilities = served.engine.capabilities();
    v1::Model {
        name: served.name.clone(),
        architecture: plan.architecture.clone(),
        fingerprint: served.file.fingerprint().to_owned(),
        max_context_tokens: u32::try_from(served.engine.max_context()).unwrap_or(u32::MAX),
        vocab_size: u32::try_from(plan.vocab).unwrap_or(u32::MAX),
        chat_template: served.file.template().is_some(),
        executor: capabilities.name.clone(),
        kv_capacity_tokens: (capabilities.blocks * capabilities.block_size) as u64,
        ready: served.engine.healthy(),
    }
}

fn load(model: &str, engine: &Engine) -> v1::ModelLoad {
    let load = engine.load();
    let count = |figure: usize| u32::try_from(figure).unwrap_or(u32::MAX);
    v1::ModelLoad {
        model: model.to_owned(),
        waiting_requests: count(load.waiting),
        waiting_tokens: load.waiting_tokens as u64,
        running_requests: count(load.running),
        kv_blocks_free: load.blocks_free as u64,
        kv_blocks_cached: load.blocks_cached as u64,
        kv_blocks_used: load.blocks_used as u64,
        kv_blocks_total: load.blocks_total as u64,
        kv_block_size: count(load.block_size),
        prefix_queried_tokens: load.prefix_queries,
        prefix_hit_tokens: load.prefix_hits,
        preemptions: load.preemptions,
        steps: load.steps,
        prefill_tokens: load.prefill_tokens,
        generated_tokens: load.generated_tokens,
        prefill_tokens_per_second: load.prefill_tokens_per_s,
        decode_step_seconds: load.decode_step_seconds,
        draft_tokens: load.draft_tokens,
        accepted_draft_tokens: load.accepted_draft_tokens,
    }
}
