package signin

import (
	"context"
	"errors"
	"net/url"
	"time"
)

// byDevice signs the person in on any device with a browser: they enter a code there,
// and the provider is asked until they have.
func (s *SignIn) byDevice(ctx context.Context, p *provider) (*tokens, error) {
	if p.has.Device == "" {
		return nil, signInFailed("sign in by browser, without --device", "%s has no sign-in by device code", s.Profile.Issuer)
	}
	var got struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		URL        string `json:"verification_uri"`
		Complete   string `json:"verification_uri_complete"`
		ExpiresIn  int    `json:"expires_in"`
		Interval   int    `json:"interval"`
	}
	form := url.Values{"scope": {p.scopes()}}
	for k, v := range s.Profile.Params {
		form.Set(k, v)
	}
	err := p.post(ctx, p.has.Device, form, &got)
	var refused *grantError
	if errors.As(err, &refused) {
		return nil, signInFailed(remedy(refused.Code), "%s gave no device code: %s", s.Profile.Issuer, refused)
	}
	if err != nil {
		return nil, err
	}
	if got.DeviceCode == "" || got.UserCode == "" || !safeURL(got.URL) {
		return nil, signInFailed("ask the provider's administrator", "the device code of %s is not whole", s.Profile.Issuer)
	}
	s.say("Sign in on any device:\n\n  go to       %s\n  enter code  %s\n", clean(got.URL), clean(got.UserCode))
	if safeURL(got.Complete) {
		s.say("  or go to    %s\n", clean(got.Complete))
	}
	if got.ExpiresIn > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(got.ExpiresIn)*time.Second)
		defer cancel()
	}
	pause := 5 * time.Second
	if got.Interval > 0 {
		pause = time.Duration(got.Interval) * time.Second
	}
	for {
		select {
		case <-s.after(pause):
		case <-ctx.Done():
			return nil, gaveUp(ctx)
		}
		t, err := p.grant(ctx, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {got.DeviceCode}})
		if !errors.As(err, &refused) {
			if err != nil && ctx.Err() != nil {
				return nil, gaveUp(ctx)
			}
			return t, err
		}
		switch refused.Code {
		case "authorization_pending":
		case "slow_down":
			pause += 5 * time.Second
		case "expired_token":
			return nil, signInFailed("run it again, and enter the code in time", "the code was not entered in time")
		default:
			return nil, signInFailed(remedy(refused.Code), "%s did not sign you in: %s", s.Profile.Issuer, refused)
		}
	}
}
