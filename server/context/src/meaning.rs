//! How near a request's sentences are to its question in meaning.
//!
//! Embedding is what takes time where documents are new, so of documents longer than [`Tools::embed_bytes`] not all is
//! embedded. Sentences are first ranked by what is cheap, their words and their vectors by the embedder's
//! [`sketcher`](Embedder::sketcher), and the best, each with its neighbours, are embedded until so many bytes are spent.
//! The nearness of the others is estimated from their sketches. Which are embedded follows from documents, question and
//! settings alone: vectors that happen to be known of others do not count, so that a cache changes no choice.

mod estimate;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::hints::Marks;
use crate::prepared::{Prepared, PreparedKey};
use crate::select::{self, Candidates, Unit};
use crate::vectors::Nearness;
use crate::{ContextError, Document, Embedder, Fusion, Policy, StageTimes, Tools};

/// Sentences on either side that are embedded with one that was chosen for it.
const RUN: usize = 1;

/// What is looked at.
pub(crate) struct Meaning<'a> {
    pub(crate) documents: &'a [Document],
    pub(crate) prepared: &'a [Arc<Prepared>],
    pub(crate) units: &'a [Unit<'a>],
    /// Units of each document.
    pub(crate) ranges: &'a [Range<usize>],
    pub(crate) marks: &'a Marks,
    pub(crate) policy: &'a Policy,
    pub(crate) tools: Tools<'a>,
}

/// A document as prepared for `tools`: kept from before, or prepared now, without vectors.
pub(crate) fn prepare(
    document: &Document,
    embedder: Option<&dyn Embedder>,
    tools: Tools<'_>,
    proceed: &mut dyn FnMut() -> Result<(), ContextError>,
    times: &mut StageTimes,
) -> Result<Arc<Prepared>, ContextError> {
    proceed()?;
    let maker = embedder.map_or("", |embedder| embedder.identity());
    let key = PreparedKey::new(tools.tenant, document, maker);
    if let Some(kept) = tools.cache.and_then(|cache| cache.get(&key)) {
        return Ok(kept);
    }
    let prepared = Arc::new(Prepared::timed(document, None, proceed, times)?);
    // With an embedder it is kept once it has vectors.
    if let Some(cache) = tools.cache.filter(|_| embedder.is_none()) {
        cache.put(key, Arc::clone(&prepared));
    }
    Ok(prepared)
}

impl Meaning<'_> {
    /// How near each unit is to the policy's question.
    pub(crate) fn near(
        &self,
        embedder: &dyn Embedder,
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
        times: &mut StageTimes,
    ) -> Result<Nearness, ContextError> {
        let clock = Instant::now();
        let query = &*self.policy.query;
        let mut question = Vec::with_capacity(embedder.dimensions());
        embedder.embed(&[query], &mut question)?;
        times.embed += clock.elapsed().as_secs_f64();
        let costs = self.costs();
        let limit = self.tools.embed_bytes.unwrap_or(usize::MAX);
        if costs.iter().sum::<usize>() <= limit {
            let prepared = self.complete(embedder, None, self.prepared.to_vec(), proceed, times)?;
            let mut near = Nearness::default();
            for prepared in &prepared {
                if let Some(vectors) = &prepared.vectors {
                    near.extend(vectors.nearness(&question, &prepared.sentences));
                }
            }
            return Ok(near);
        }

        let mut prepared = self.prepared.to_vec();
        let sketched = match embedder.sketcher() {
            Some(sketcher) => {
                Some(self.sketch(sketcher, &mut prepared, &mut *proceed, &mut *times)?)
            }
            None => None,
        };
        let clock = Instant::now();
        let known = self.nominate(sketched.as_ref(), &costs, limit);
        times.select += clock.elapsed().as_secs_f64();
        let prepared = self.complete(embedder, Some(&known), prepared, proceed, times)?;
        let clock = Instant::now();
        let mut near = Nearness::default();
        for (prepared, range) in prepared.iter().zip(self.ranges) {
            if let Some(vectors) = &prepared.vectors {
                let known = &known[range.clone()];
                let of = match known.contains(&false) {
                    true => vectors
                        .only(known, &prepared.sentences)
                        .nearness(&question, &prepared.sentences),
                    false => vectors.nearness(&question, &prepared.sentences),
                };
                near.extend(of);
            }
        }
        near.known = known;
        estimate::fill(&mut near, sketched.as_ref());
        times.select += clock.elapsed().as_secs_f64();
        Ok(near)
    }

    /// Bytes that are to be embedded for each unit; 0 for those of stored documents, which were embedded before.
    fn costs(&self) -> Vec<usize> {
        let mut costs = Vec::with_capacity(self.units.len());
        for (document, prepared) in self.documents.iter().zip(self.prepared) {
            match document.stored {
                true => costs.resize(costs.len() + prepared.sentences.len(), 0),
                false => costs.extend(prepared.costs(document)),
            }
        }
        costs
    }

    /// How near each unit is to the question by vectors of `sketcher`, which every document that was not stored gets
    /// in `prepared`; for stored ones nothing is looked at.
    fn sketch(
        &self,
        sketcher: &dyn Embedder,
        prepared: &mut [Arc<Prepared>],
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
        times: &mut StageTimes,
    ) -> Result<Nearness, ContextError> {
        let clock = Instant::now();
        let mut question = Vec::with_capacity(sketcher.dimensions());
        sketcher.embed(&[&self.policy.query], &mut question)?;
        let mut near = Nearness::default();
        for (document, prepared) in self.documents.iter().zip(prepared) {
            if document.stored {
                near.extend(Nearness::zero(prepared.sentences.len()));
                continue;
            }
            if prepared.sketch.is_none() {
                Arc::make_mut(prepared).sketch(document, sketcher, proceed)?;
            }
            if let Some(sketch) = &prepared.sketch {
                near.extend(sketch.nearness(&question, &prepared.sentences));
            }
        }
        times.embed += clock.elapsed().as_secs_f64();
        Ok(near)
    }

    /// The units to be embedded: all of stored documents, and of the others the best by `sketched` and words, each with its
    /// neighbours, until `limit` bytes are spent.
    fn nominate(&self, sketched: Option<&Nearness>, costs: &[usize], limit: usize) -> Vec<bool> {
        // Ranked among themselves.
        let places: Vec<usize> =
            (0..self.documents.len()).filter(|&place| !self.documents[place].stored).collect();
        let documents: Vec<&Prepared> =
            places.iter().map(|&place| self.prepared[place].as_ref()).collect();
        let of: Vec<usize> = places.iter().flat_map(|&place| self.ranges[place].clone()).collect();
        let number = |document: usize| places.partition_point(|&place| place < document);
        let units = of.iter().map(|&unit| {
            let Unit { document, sentence } = self.units[unit];
            Unit { document: number(document), sentence }
        });
        let units: Vec<Unit<'_>> = units.collect();
        let sketched = sketched.map(|near| near.of(&of));
        let candidates = Candidates {
            documents: &documents,
            units: &units,
            marks: &self.marks.of(of.iter().copied()),
            near: sketched.as_ref(),
        };
        let policy = Policy {
            // Told by sketches, it would rule out what vectors may find.
            min_score: None,
            fusion: Fusion::Scores,
            ..self.policy.clone()
        };
        let ranking = select::rank(&candidates, &policy);

        let mut chosen: Vec<bool> = costs.iter().map(|cost| *cost == 0).collect();
        let mut left = limit;
        for place in ranking.order {
            let unit = of[place];
            let range = &self.ranges[self.units[unit].document];
            let run = unit.saturating_sub(RUN).max(range.start)..(unit + RUN + 1).min(range.end);
            let cost: usize =
                run.clone().filter(|&unit| !chosen[unit]).map(|unit| costs[unit]).sum();
            let Some(rest) = left.checked_sub(cost) else { break };
            left = rest;
            chosen[run].fill(true);
        }
        chosen
    }

    /// The documents with vectors of the `wanted` units (`None`: all), kept for later if that took any work.
    fn complete(
        &self,
        embedder: &dyn Embedder,
        wanted: Option<&[bool]>,
        mut prepared: Vec<Arc<Prepared>>,
        proceed: &mut dyn FnMut() -> Result<(), ContextError>,
        times: &mut StageTimes,
    ) -> Result<Vec<Arc<Prepared>>, ContextError> {
        let clock = Instant::now();
        for (place, prepared) in prepared.iter_mut().enumerate() {
            let (document, first) = (&self.documents[place], self.ranges[place].start);
            let wanted = |sentence: usize| wanted.is_none_or(|wanted| wanted[first + sentence]);
            if prepared.lacks(wanted) {
                Arc::make_mut(prepared).embed(document, embedder, wanted, proceed)?;
            }
            if let Some(cache) = self.tools.cache
                && !Arc::ptr_eq(prepared, &self.prepared[place])
            {
                let key = PreparedKey::new(self.tools.tenant, document, embedder.identity());
                cache.put(key, Arc::clone(prepared));
            }
        }
        times.embed += clock.elapsed().as_secs_f64();
        Ok(prepared)
    }
}
