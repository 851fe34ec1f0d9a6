//! Plans of made-up stages, and of the demo model's decoder, which runs in strips.

use super::*;
use crate::network::Network;
use crate::weights::Shape;

fn demands() -> Vec<StageDemand> {
    let demand = |activations: u64, count: u64| Demand {
        activations: activations * MIB,
        between_runs: 0,
        strips: None,
        ring_beside_strips: false,
        tables: 0,
        beside: 0,
        matrices: (0..count).map(|i| (Arc::from(format!("m{i}")), MIB)).collect(),
        weights_ahead: 0,
        largest_block: MIB / 4,
        work: WorkByKind::default(),
    };
    let of = |stage, demand| StageDemand::new(SamplingPass::First, stage, 1, demand);
    vec![
        of(Stage::TextEncoder, demand(1, 100)),
        of(Stage::Unet, demand(60, 800)),
        of(Stage::VaeDecoder, demand(90, 50)),
    ]
}

#[test]
fn with_room_for_all_everything_stays() {
    for memory in [None, Some(2048 * MIB)] {
        let plan = plan(&demands(), memory, process(2)).unwrap();
        assert!(plan.keeps_all && plan.stages.iter().all(|stage| stage.streamed == 0));
        assert_eq!(
            plan.peak(),
            process(2)
                + with_slack(90 * MIB)
                + 4 * MIB
                + with_slack(100 * MIB)
                + with_slack(800 * MIB)
                + with_slack(50 * MIB)
        );
    }
}

#[test]
fn every_budget_is_kept_and_used() {
    let mut streamed = u64::MAX;
    for memory in (115..1080).map(|mib| mib * MIB) {
        let plan = plan(&demands(), Some(memory), process(2)).unwrap();
        assert!(plan.peak() <= memory, "{} MiB", memory / MIB);
        let unet = plan.stages.iter().find(|plan| plan.stage == Stage::Unet).unwrap();
        assert_eq!(unet.resident + unet.streamed, 800 * MIB);
        assert!(unet.streamed <= streamed, "more memory never reads more");
        streamed = unet.streamed;
    }
    assert!(streamed < 40 * MIB, "{} MiB", streamed / MIB);
}

#[test]
fn too_little_names_the_least() {
    let error = plan(&demands(), Some(100 * MIB), process(2)).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
    assert_eq!(error.to_string(), "100 MiB is too little for this size; it needs at least 107 MiB");
    assert!(plan(&demands(), Some(107 * MIB), process(2)).is_ok());
}

/// Of an image of 512 × 512.
fn decoder(network: &mut Network) -> Demand {
    network.demand_of(vec![1, 64, 64, 4], vec![1, 512, 512, 3])
}

/// The decoder's plan where `free` bytes are for it, and what its strips are planned to take of them.
fn decoder_plan(demand: &Demand, free: u64) -> (StagePlan, u64) {
    let stage = StageDemand::new(SamplingPass::First, Stage::VaeDecoder, 1, demand.clone());
    let plan = divide(&stage, free);
    let strips = strips::plan(demand.strips.as_ref().unwrap(), plan.budget.strips.unwrap());
    (plan, with_slack(demand.fixed() + strips.peak as u64))
}

#[test]
fn strips_have_the_rings_room_once_all_is_read() {
    // So that the strips decide.
    let after = Demand { activations: 0, ..decoder(&mut Network::demo("vae_decoder")) };
    assert!(!after.ring_beside_strips && after.least_ring() > 0);
    let beside = Demand { ring_beside_strips: true, ..after.clone() };
    assert!(after.smallest() < beside.smallest());
    for free in (beside.smallest()..beside.smallest() + 8 * MIB).step_by(MIB as usize / 3) {
        let (plan, strips) = decoder_plan(&after, free);
        assert!(strips <= free && plan.peak <= free && strips <= plan.peak, "{free}: {strips}, {plan:?}");
        assert!(with_slack(after.fixed() + after.activations) + plan.ring <= plan.peak, "{free}: {plan:?}");
        let (plan, strips) = decoder_plan(&beside, free);
        assert!(strips + plan.ring <= plan.peak && plan.peak <= free, "{free}: {strips}, {plan:?}");
    }
    let room = |demand| decoder_plan(demand, beside.smallest()).0.budget.strips.unwrap() as u64;
    let (more, ring) = (room(&after) - room(&beside), after.least_ring());
    assert!(more <= ring && with_slack(more) + 1 >= ring, "{more} bytes more, of {ring}");
}

#[test]
fn what_is_kept_includes_the_weights_of_strips() {
    let mut network = Network::demo("vae_decoder");
    let demand = decoder(&mut network);
    let weights = network.weights();
    let matrices = weights.iter().filter(|(_, shape)| matches!(shape, Shape::Matrix { .. }));
    let in_file: u64 = matrices.map(|(bytes, _)| *bytes as u64).sum();
    assert!(demand.weights() < in_file);
    let stage = StageDemand::new(SamplingPass::First, Stage::VaeDecoder, 1, demand);
    let plan = plan(&[stage], None, 0).unwrap();
    assert_eq!((plan.stages[0].resident, plan.stages[0].streamed), (in_file, 0));
}

#[test]
fn an_encoders_strips_leave_the_ring_its_room() {
    let demand = Network::demo("vae_encoder").demand_of(vec![1, 512, 512, 3], vec![1, 64, 64, 8]);
    assert!(demand.ring_beside_strips && demand.least_ring() > 0);
    let strips = strips::smallest(demand.strips.as_ref().unwrap()).peak as u64;
    assert!(demand.smallest() >= with_slack(demand.fixed() + strips) + demand.least_ring());
}

#[test]
fn a_preview_leaves_what_is_held_between_runs() {
    let preview = decoder(&mut Network::demo("vae_decoder"));
    let [_, StageDemand { demand: unet, .. }, _] = demands().try_into().unwrap();
    for between_runs in [0, 5 * MIB, 70 * MIB] {
        let mut unet = Demand { between_runs, ..unet.clone() };
        let budget = unet.make_room_for(&preview);
        let strips = strips::plan(preview.strips.as_ref().unwrap(), budget.strips.unwrap()).peak as u64;
        let held = between_runs + with_slack(preview.fixed() + strips);
        assert!(held <= unet.activations, "{held} bytes of {}", unet.activations);
        assert!(unet.activations == 60 * MIB || between_runs > 5 * MIB);
    }
}
