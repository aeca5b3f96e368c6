/* A kernel that reads its parameter by name and through a register: what ptxsim makes of both, as it is and by
 * parameters_by_name. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ptxsim.h"
#include "tests/kernels/ptx/parameters.h"

static const char kernel[] = R"(
.version 9.0
.target sm_90
.address_size 64

.visible .entry both(
    .param .align 8 .b8 both_param_0[24]
)
{
    .reg .b64     %rd<8>;

    ld.param.u64     %rd1, [both_param_0];
    ld.param.u64     %rd2, [both_param_0+16];
    mov.b64     %rd3, both_param_0;
    add.s64     %rd4, %rd3, 24;
    ld.param.u64     %rd5, [%rd4+-8];
    cvta.to.global.u64     %rd6, %rd1;
    st.global.u64     [%rd6], %rd2;
    st.global.u64     [%rd6+8], %rd5;
    ret;
}
)";

/* What the kernel reads by name and through a register. */
static void run(const std::string &ptx, uint64_t out[2])
{
    struct {
        uint64_t *out;
        uint64_t unused, value;
    } parameters = {out, 0, 42};
    out[0] = out[1] = 7;
    ptxsim::region_add(out, 16, false);
    ptxsim::run(ptx.c_str(), "both", &parameters, {1, 1, 1}, {1, 1, 1}, 0);
    ptxsim::region_del(out);
}

int main()
{
    static uint64_t as_is[2], named[2];
    run(kernel, as_is);
    std::string ptx = parameters_by_name(kernel);
    run(ptx, named);
    printf("by name %d, through a register %d; rewritten %d and %d; 42 was passed\n", (int)as_is[0], (int)as_is[1],
           (int)named[0], (int)named[1]);
    if (as_is[1] == 42)
        printf("ptxsim knows addresses of parameters by now: parameters.cpp is not needed\n");
    return as_is[0] == 42 && named[0] == 42 && named[1] == 42 && ptxsim::errors() == 0 ? 0 : 1;
}
