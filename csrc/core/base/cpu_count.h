#pragma once

namespace veturbo {

// Processors that this process may run on.
int available_cpus();

}  // namespace veturbo
