#include "text/prior.h"

#include <math.h>

#include "base/check.h"
#include "base/embed.h"

size_t
prior_slots(void)
{
    size_t n = embedded_prior_df.len;
    ASSERT((n & (n - 1)) == 0);
    return n == 0 ? 1 : n;
}

float
prior_idf(size_t slot)
{
    if (embedded_prior_df.len == 0)
        return 1;
    unsigned char b = embedded_prior_df.bytes[slot];
    return (float)(b == 0 ? 1 : b) / 255.0f;
}

float
prior_idf_of(uint32_t df, uint32_t n)
{
    return logf(1.0f + (float)n / ((float)df + 0.5f)) /
           logf(1.0f + 2.0f * (float)n);
}
