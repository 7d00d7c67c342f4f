use super::*;

#[test]
fn bytes_in_flight_leave_with_their_event() {
    let mut in_flight = InFlight::default();
    in_flight.add(3, 100);
    in_flight.add(5, 50);
    assert_eq!((in_flight.commands(), in_flight.bytes), (5, 150));
    in_flight.settle(2);
    assert_eq!((in_flight.commands(), in_flight.bytes), (3, 150), "the first event is not whole yet");
    in_flight.settle(3);
    assert_eq!((in_flight.commands(), in_flight.bytes, in_flight.is_empty()), (2, 50, false));
    in_flight.settle(5);
    assert_eq!((in_flight.commands(), in_flight.bytes, in_flight.is_empty()), (0, 0, true));
}
