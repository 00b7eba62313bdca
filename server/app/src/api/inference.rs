//! `pith.v1.Inference`: prompts and chats in, tokens out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pith_engine::request::{GenerateRequest, StopConditions};
use pith_model::tokenizer::Special;
use pith_proto::v1;
use pith_proto::v1::generate_response::Event as Wire;
use pith_proto::v1::inference_server::Inference;
use tonic::{Request, Response, Status};

use super::Api;
use super::answer::{Answer, AnswerStream};
use super::gate::Caller;
use super::offsets::Offsets;
use super::prepare::prepare;
use super::status::ApiError;
use super::validate::{self, Job};
use crate::boot::Served;
use crate::language_model::Cancelled;

impl Api {
    /// Prepares `job` and hands it to the engine.
    async fn begin(&self, mut job: Job, caller: Caller) -> Result<Answer, ApiError> {
        let served = self.serving.find(&job.model)?;
        let (job, prepared) = {
            let (served, mut desk) = (Arc::clone(&served), self.desk(&job.sources)?);
            let (tenant, deadline) = (Arc::clone(&caller.tenant.name), caller.deadline);
            let work = move |cancelled: Cancelled| {
                desk.read(
                    &mut job.sources,
                    &tenant,
                    &served,
                    job.output.unit,
                    deadline,
                    &cancelled,
                )?;
                let means = desk.means(&tenant);
                let prepared = prepare(&job, &served, means, deadline, cancelled)?;
                desk.leave(&tenant, &job.sources.documents);
                Ok((job, prepared))
            };
            self.preparers.run(work).await?
        };
        let mut answer = Answer {
            tokens: None,
            ready: prepared.report.map(Wire::Report).into_iter().collect::<VecDeque<_>>(),
            citing: prepared.citing,
            unit: job.output.unit,
            logprobs: job.output.logprobs,
            request_id: job.request_id.clone(),
            model: served.name.clone(),
            submitted: Instant::now(),
            text: String::new(),
            logprob_sum: 0.0,
            logprob_count: 0,
            caller,
        };
        if !job.dry_run {
            answer.tokens = Some(served.engine.submit(GenerateRequest {
                id: job.request_id,
                tenant: Arc::clone(&answer.caller.tenant.name),
                prompt: prepared.tokens,
                sampling: job.sampling,
                stop: StopConditions {
                    max_tokens: prepared.max_tokens,
                    min_tokens: job.stop.min_tokens,
                    strings: job.stop.strings,
                    tokens: job.stop.tokens,
                    ignore_end: job.stop.ignore_end,
                },
                deadline: Some(answer.caller.deadline),
                prefix_cache: job.prefix_cache,
            })?);
        }
        Ok(answer)
    }
}

#[tonic::async_trait]
impl Inference for Api {
    type GenerateStream = AnswerStream;
    type ChatStream = AnswerStream;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<AnswerStream>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self.begin(validate::generate(request.into_inner())?, caller).await?;
        Ok(Response::new(answer.stream()))
    }

    async fn generate_unary(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<v1::GenerateUnaryResponse>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self.begin(validate::generate(request.into_inner())?, caller).await?;
        Ok(Response::new(answer.collect().await?))
    }

    async fn chat(
        &self,
        request: Request<v1::ChatRequest>,
    ) -> Result<Response<AnswerStream>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self.begin(validate::chat(request.into_inner())?, caller).await?;
        Ok(Response::new(answer.stream()))
    }

    async fn chat_unary(
        &self,
        request: Request<v1::ChatRequest>,
    ) -> Result<Response<v1::GenerateUnaryResponse>, Status> {
        let caller = Caller::of(&request)?;
        let answer = self.begin(validate::chat(request.into_inner())?, caller).await?;
        Ok(Response::new(answer.collect().await?))
    }

    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        let _caller = Caller::of(&request)?;
        let request = request.into_inner();
        let served = self.serving.find(&request.model)?;
        let work = move |_| tokenize(&served, &request);
        Ok(Response::new(self.preparers.run(work).await?))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        let _caller = Caller::of(&request)?;
        let request = request.into_inner();
        let served = self.serving.find(&request.model)?;
        let work = move |_| {
            let tokenizer = served.file.tokenizer();
            validate::token_ids(&request.token_ids, tokenizer.vocab())?;
            Ok(v1::DetokenizeResponse {
                text: tokenizer.decode(&request.token_ids, request.show_control_tokens),
            })
        };
        Ok(Response::new(self.preparers.run(work).await?))
    }

    async fn abort(
        &self,
        request: Request<v1::AbortRequest>,
    ) -> Result<Response<v1::AbortResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().request_id;
        if id.is_empty() {
            return Err(ApiError::field("request_id", "must not be empty").into());
        }
        let served = self.serving.find("")?;
        Ok(Response::new(v1::AbortResponse {
            found: served.engine.abort(&caller.tenant.name, &id),
        }))
    }
}

fn tokenize(
    served: &Served,
    request: &v1::TokenizeRequest,
) -> Result<v1::TokenizeResponse, ApiError> {
    let unit = validate::unit("offset_unit", request.offset_unit)?;
    let tokenizer = served.file.tokenizer();
    let special = if request.parse_control_tokens { Special::Parse } else { Special::Plain };
    let bos = tokenizer.prompt_bos().filter(|_| request.add_bos);
    let mut response =
        v1::TokenizeResponse { token_ids: bos.into_iter().collect(), spans: Vec::new() };
    if !request.with_spans {
        response.token_ids.extend(tokenizer.encode(&request.text, special));
        return Ok(response);
    }
    let offsets = Offsets::new(unit, &request.text);
    response.spans.extend(bos.map(|_| v1::TokenSpan::default()));
    for span in tokenizer.encode_spans(&request.text, special) {
        response.token_ids.push(span.id);
        response
            .spans
            .push(v1::TokenSpan { start: offsets.at(span.start), end: offsets.at(span.end) });
    }
    Ok(response)
}
