// Every kernel, compiled for the host. Each file has a namespace of its own, as each is a module of its own on a device.
#include "../attention.cuh"
#include "../device.cuh"
#include "../logits.cuh"
#include "../matrix.cuh"
#include "../prefill.cuh"
#include "../threshold.cuh"
#include "../warpgroup.cuh"

namespace attend_decode {
#include "../attend_decode.cu"
}

namespace attend_prefill {
#include "../attend_prefill.cu"
}

namespace attend_prefill_sm90 {
#include "../attend_prefill_sm90.cu"
}

namespace copy {
#include "../copy.cu"
}

namespace dequantise {
#include "../dequantise.cu"
}

namespace embed_rows {
#include "../embed_rows.cu"
}

namespace encoder {
#include "../encoder.cu"
}

namespace gated {
#include "../gated.cu"
}

namespace gemm {
#include "../gemm.cu"
}

namespace gemv {
#include "../gemv.cu"
}

namespace heads {
#include "../heads.cu"
}

namespace mass {
#include "../mass.cu"
}

namespace norm {
#include "../norm.cu"
}

namespace sample {
#include "../sample.cu"
}

namespace score {
#include "../score.cu"
}

namespace tokens {
#include "../tokens.cu"
}

extern "C" void pith_host_kernels() {}
