use super::*;
use crate::commands::report::tests::well_formed;

fn plot(points: &[(f64, f64)]) -> Plot {
    let series = vec![Series { name: "a < b".to_owned(), points: points.to_vec() }];
    Plot {
        kind: Kind::Chosen,
        title: "T & t".to_owned(),
        x: "x".to_owned(),
        y: "y".to_owned(),
        series,
    }
}

#[test]
fn a_plot_is_well_formed_and_escapes_its_names() {
    let html = plot(&[(1.0, 2.0), (2.0, 3.0)]).html();
    well_formed(&html);
    assert!(html.contains("T &amp; t") && html.contains("a &lt; b"), "{html}");
    assert_eq!(html.matches("<circle").count(), 2);
    assert_eq!(html.matches("<polyline").count(), 1);
}

#[test]
fn points_lie_where_the_axes_say() {
    let x = Axis::horizontal(&[0.0, 10.0], Kind::Time).unwrap();
    assert_eq!((x.place(0.0), x.place(10.0)), (LEFT, WIDTH - RIGHT));
    let y = Axis::vertical(&[5.0, 100.0]).unwrap();
    assert_eq!((y.place(0.0), y.place(105.0)), (HEIGHT - BOTTOM, TOP));
    let log = Axis::horizontal(&[1.0, 100.0], Kind::Measured).unwrap();
    assert!((log.place(10.0) - (LEFT + WIDTH - RIGHT) / 2.0).abs() < 1e-9);
}

#[test]
fn ticks_are_round_or_chosen_and_within() {
    let ticks = |values: &[f64], kind| Axis::horizontal(values, kind).unwrap().ticks();
    assert_eq!(ticks(&[0.0, 10.0], Kind::Measured), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    assert_eq!(ticks(&[1.0, 64.0], Kind::Measured), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
    assert_eq!(ticks(&[1.0, 64.0], Kind::Time), [20.0, 40.0, 60.0]);
    assert_eq!(ticks(&[64.0, 8.0, 1.0, 8.0], Kind::Chosen), [1.0, 8.0, 64.0]);
    assert_eq!(ticks(&[3.0, 3.0], Kind::Chosen), [3.0]);
    // Two that are too close share a tick.
    assert_eq!(ticks(&[1.0, 1000.0, 1001.0], Kind::Chosen), [1.0, 1000.0]);
    for high in [0.001, 0.7, 3.3, 99.0, 12_345.0] {
        let ticks = Axis::vertical(&[high]).unwrap().ticks();
        assert!((3..=9).contains(&ticks.len()), "{high}: {ticks:?}");
    }
}

#[test]
fn only_chosen_values_are_marked() {
    for (kind, marks) in [(Kind::Chosen, 2), (Kind::Measured, 0), (Kind::Time, 0)] {
        let html = Plot { kind, ..plot(&[(1.0, 2.0), (2.0, 3.0)]) }.html();
        assert_eq!(html.matches("<circle").count(), marks, "{kind:?}");
    }
}

#[test]
fn what_cannot_be_drawn_is_left_out() {
    assert_eq!(plot(&[]).html(), "");
    assert_eq!(plot(&[(f64::NAN, 1.0), (1.0, f64::INFINITY)]).html(), "");
    let html = plot(&[(1.0, 1.0), (f64::INFINITY, 2.0)]).html();
    assert_eq!(html.matches("<circle").count(), 1);
    assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    // All equal, and all zero.
    for points in [[(2.0, 0.0), (2.0, 0.0)], [(0.0, 5.0), (0.0, 5.0)]] {
        assert!(!plot(&points).html().contains("NaN"));
    }
}

#[test]
fn a_distribution_ends_with_all_of_it() {
    assert_eq!(
        cumulative(&[3.0, 1.0, 2.0, 4.0], 10),
        [(1.0, 25.0), (2.0, 50.0), (3.0, 75.0), (4.0, 100.0)]
    );
    let many: Vec<f64> = (0..1000).map(f64::from).collect();
    let points = cumulative(&many, 50);
    assert_eq!((points.len(), points[0], points[49]), (50, (0.0, 0.1), (999.0, 100.0)));
    assert_eq!(cumulative(&[], 10), []);
    assert_eq!(cumulative(&[7.0], 10), [(7.0, 100.0)]);
}

#[test]
fn figures_have_three_digits() {
    let cases = [
        (0.0, "0"),
        (0.012_34, "0.0123"),
        (1.0, "1"),
        (2.5, "2.5"),
        (123.4, "123"),
        (45_678.0, "45678"),
    ];
    for (value, text) in cases {
        assert_eq!(figure(value), text);
    }
}
