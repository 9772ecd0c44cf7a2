// Looks for a key, or makes a wrapped one, with what the environment says, and tells what came of it but no secret.
//
//   find_key_program find PATH [MODE IV WRAPPED_KEY]
//   find_key_program wrap MODE
//
// Ctrl-C requests a stop.
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <iostream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/base64.h"
#include "base/error.h"
#include "keys/find_key.h"
#include "keys/kms_signature.h"

namespace {

using namespace veturbo;

// Enough to tell whether it is the right one.
std::string digest(const crypto::DataKey& key) {
  return keys::sha256_hex(key.key.text()) + " " + base64_encode(key.iv);
}

void find(const std::vector<std::string>& arguments, const std::stop_token& stop) {
  keys::KeyRequest request{.path = arguments.at(1), .header = std::nullopt};
  if (arguments.size() > 2) {
    format::CipherHeader header{.mode = format::parse_cipher_mode(arguments.at(2)), .iv = {}, .wrapped_key = arguments.at(4)};
    const Secret iv = base64_decode(arguments.at(3)).value();
    std::copy_n(iv.bytes().begin(), header.iv.size(), header.iv.begin());
    request.header = header;
  }
  const keys::FoundKey found = keys::find_key(request, stop);
  std::cout << found.source << "\n" << digest(found.key) << "\n";
}

void wrap(const std::vector<std::string>& arguments, const std::stop_token& stop) {
  const keys::WrappedKey made = keys::make_wrapped_key(format::parse_cipher_mode(arguments.at(1)), stop);
  std::cout << format::cipher_mode_name(made.header.mode) << " " << base64_encode(made.header.iv) << " "
            << made.header.wrapped_key << " " << made.header.file_timestamp << "\n"
            << digest(made.key) << "\n";
}

int run(const std::vector<std::string>& arguments, const std::stop_token& stop) {
  try {
    arguments.at(0) == "find" ? find(arguments, stop) : wrap(arguments, stop);
    return 0;
  } catch (const Error& error) {
    constexpr std::pair<ErrorKind, const char*> kNames[] = {
        {ErrorKind::kNoKey, "no_key"}, {ErrorKind::kInvalidArgument, "invalid_argument"}, {ErrorKind::kCancelled, "cancelled"}};
    const auto* const name =
        std::find_if(std::begin(kNames), std::end(kNames), [&error](const auto& entry) { return entry.first == error.kind(); });
    std::cout << (name == std::end(kNames) ? "other" : name->second) << "\n" << error.message() << "\n";
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  // Blocked before the thread is made, so that it is blocked there, too, and waits for whoever asks.
  sigset_t interrupt;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, nullptr);

  int result = 1;
  std::atomic<bool> done = false;
  std::jthread worker([&](const std::stop_token& stop) {
    result = run(arguments, stop);
    done = true;
  });
  std::chrono::steady_clock::time_point stopped;
  while (!done) {
    const timespec tick{.tv_sec = 0, .tv_nsec = 5'000'000};
    if (sigtimedwait(&interrupt, nullptr, &tick) == SIGINT) {
      stopped = std::chrono::steady_clock::now();
      worker.request_stop();
      break;
    }
  }
  worker.join();
  if (worker.get_stop_token().stop_requested()) {
    const auto passed = std::chrono::steady_clock::now() - stopped;
    std::cout << std::chrono::duration_cast<std::chrono::milliseconds>(passed).count() << "\n";
  }
  return result;
}
