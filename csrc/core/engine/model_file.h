#pragma once

#include "format/safetensors.h"
#include "storage/readable_file.h"

namespace veturbo::engine {

// Reads and checks the header of a safetensors file. Throws Error(kTorchFile) for a file of torch.save, Error(kFormat) for any
// other; each names the file.
format::SafetensorsHeader read_safetensors_header(storage::ReadableFile& file);

}  // namespace veturbo::engine
