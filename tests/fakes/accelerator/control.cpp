// What the tests ask of the simulated accelerator and tell it, as C functions for ctypes.

#include <chrono>
#include <string>
#include <thread>

#include "device.h"

using fake::Machine;

extern "C" {

void fake_set_max_delay_us(int64_t value) {
  fake::Knobs knobs = Machine::get().knobs();
  knobs.max_delay_us = value;
  Machine::get().set_knobs(knobs);
}

// 1 is the next one; 0 none.
void fake_fail_copy(int64_t which) {
  fake::Knobs knobs = Machine::get().knobs();
  knobs.fail_copy = which;
  Machine::get().set_knobs(knobs);
}

void fake_fail_event(int64_t which) {
  fake::Knobs knobs = Machine::get().knobs();
  knobs.fail_event = which;
  Machine::get().set_knobs(knobs);
}

void fake_hold(int64_t device, int64_t stream, int held) {
  Machine::get().hold({static_cast<int>(device), stream}, held != 0);
}

// For callers that then block Python itself.
void fake_let_go_later(int64_t device, int64_t milliseconds) {
  std::thread([device, milliseconds] {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    for (int64_t stream = 0; stream < fake::kStreamsPerDevice; ++stream) {
      Machine::get().hold({static_cast<int>(device), stream}, false);
    }
  }).detach();
}

int64_t fake_streams_per_device() {
  return fake::kStreamsPerDevice;
}

int64_t fake_counter(const char* name) {
  const fake::Counters counters = Machine::get().counters();
  const std::string wanted = name;
  if (wanted == "copies") {
    return counters.copies;
  }
  if (wanted == "bytes_in_flight") {
    return counters.bytes_in_flight;
  }
  if (wanted == "peak_bytes_in_flight") {
    return counters.peak_bytes_in_flight;
  }
  if (wanted == "pinned_bytes") {
    return counters.pinned_bytes;
  }
  if (wanted == "peak_pinned_bytes") {
    return counters.peak_pinned_bytes;
  }
  if (wanted == "pinned_blocks_lent") {
    return counters.pinned_blocks_lent;
  }
  return wanted == "device_blocks_lent" ? counters.device_blocks_lent : -1;
}

void fake_reset_counters() {
  Machine::get().reset_counters();
}

// Makes all as it was in the beginning, but for memory that somebody has.
void fake_reset(uint64_t seed) {
  Machine& machine = Machine::get();
  machine.set_knobs({});
  for (int device = 0; device < fake::kNumDevices; ++device) {
    for (int64_t stream = 0; stream < fake::kStreamsPerDevice; ++stream) {
      machine.hold({device, stream}, false);
    }
  }
  machine.trim();
  machine.empty_pinned_cache();
  machine.reset_counters();
  machine.clear_violations();
  machine.seed(seed);
}

void fake_clear_violations() {
  Machine::get().clear_violations();
}

// One a line; the text is good until the same thread asks again.
const char* fake_violations() {
  thread_local std::string text;
  text = Machine::get().violations();
  return text.c_str();
}
}
