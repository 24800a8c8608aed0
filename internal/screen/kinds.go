package screen

import (
	"slices"
	"strings"
)

// A kind is an index into kinds.
type findingKind uint8

const (
	kindNone findingKind = iota

	// Personal data.
	kindEmail
	kindPhone
	kindCard
	kindIBAN
	kindBirthDate
	kindUSSSN
	kindUSITIN
	kindUSMedicare
	kindCASIN
	kindMXCURP
	kindBRCPF
	kindUKNINO
	kindUKNHS
	kindESDNI
	kindESNIE
	kindITCodiceFiscale
	kindFRNIR
	kindDESteuerID
	kindNLBSN
	kindBENationalNumber
	kindCHAHV
	kindPLPESEL
	kindSEPersonnummer
	kindNOFodselsnummer
	kindDKCPR
	kindFIHETU
	kindINAadhaar
	kindINPAN
	kindCNResidentID
	kindKRResidentNumber
	kindSGNRIC
	kindHKID

	// Secrets.
	kindWaybillKey
	kindAWSAccessKey
	kindAWSSecretKey
	kindAWSSessionToken
	kindBedrockAPIKey
	kindSignedURL
	kindAnthropicKey
	kindOpenAIKey
	kindHuggingFaceToken
	kindAIServiceKey
	kindGoogleAPIKey
	kindGoogleOAuthToken
	kindAzureStorageKey
	kindAzureSAS
	kindAzureClientSecret
	kindGitHubToken
	kindGitLabToken
	kindNPMToken
	kindPyPIToken
	kindPackageToken
	kindSlackToken
	kindTelegramToken
	kindWebhookURL
	kindStripeKey
	kindPaymentKey
	kindTwilioKey
	kindSendGridKey
	kindDigitalOceanToken
	kindShopifyToken
	kindDatabricksToken
	kindVaultToken
	kindAtlassianToken
	kindDockerToken
	kindGrafanaToken
	kindServiceToken
	kindJWT
	kindBearer
	kindBasicAuth
	kindURLCredentials
	kindPrivateKey
	kindSSHPrivateKey
	kindPGPPrivateKey
	kindAgeKey
	kindOTPSecret
	kindPassword
	kindSecret
	kindHighEntropy

	kindCount
)

// findingKinds are the findings by kind. The codes are part of the policy's language and of
// what is recorded: they do not change.
var findingKinds = [kindCount]Finding{
	kindEmail:            {"email", "an e-mail address"},
	kindPhone:            {"phone", "a telephone number"},
	kindCard:             {"card", "a payment card number"},
	kindIBAN:             {"iban", "an IBAN"},
	kindBirthDate:        {"birth_date", "a date of birth"},
	kindUSSSN:            {"us_ssn", "a US social security number"},
	kindUSITIN:           {"us_itin", "a US individual taxpayer number"},
	kindUSMedicare:       {"us_medicare", "a US Medicare number"},
	kindCASIN:            {"ca_sin", "a Canadian social insurance number"},
	kindMXCURP:           {"mx_curp", "a Mexican CURP"},
	kindBRCPF:            {"br_cpf", "a Brazilian CPF"},
	kindUKNINO:           {"uk_nino", "a UK national insurance number"},
	kindUKNHS:            {"uk_nhs", "a UK NHS number"},
	kindESDNI:            {"es_dni", "a Spanish DNI"},
	kindESNIE:            {"es_nie", "a Spanish NIE"},
	kindITCodiceFiscale:  {"it_codice_fiscale", "an Italian codice fiscale"},
	kindFRNIR:            {"fr_nir", "a French social security number"},
	kindDESteuerID:       {"de_steuer_id", "a German tax id"},
	kindNLBSN:            {"nl_bsn", "a Dutch BSN"},
	kindBENationalNumber: {"be_national_number", "a Belgian national number"},
	kindCHAHV:            {"ch_ahv", "a Swiss AHV number"},
	kindPLPESEL:          {"pl_pesel", "a Polish PESEL"},
	kindSEPersonnummer:   {"se_personnummer", "a Swedish personal number"},
	kindNOFodselsnummer:  {"no_fodselsnummer", "a Norwegian birth number"},
	kindDKCPR:            {"dk_cpr", "a Danish CPR number"},
	kindFIHETU:           {"fi_hetu", "a Finnish personal identity code"},
	kindINAadhaar:        {"in_aadhaar", "an Indian Aadhaar number"},
	kindINPAN:            {"in_pan", "an Indian PAN"},
	kindCNResidentID:     {"cn_resident_id", "a Chinese resident id"},
	kindKRResidentNumber: {"kr_rrn", "a Korean resident number"},
	kindSGNRIC:           {"sg_nric", "a Singapore NRIC"},
	kindHKID:             {"hk_id", "a Hong Kong identity card number"},

	kindWaybillKey:        {"waybill_key", "a Waybill gateway key"},
	kindAWSAccessKey:      {"aws_access_key", "an AWS access key id"},
	kindAWSSecretKey:      {"aws_secret_key", "an AWS secret access key"},
	kindAWSSessionToken:   {"aws_session_token", "an AWS session token"},
	kindBedrockAPIKey:     {"bedrock_api_key", "an Amazon Bedrock API key"},
	kindSignedURL:         {"signed_url", "a presigned URL"},
	kindAnthropicKey:      {"anthropic_key", "an Anthropic API key"},
	kindOpenAIKey:         {"openai_key", "an OpenAI API key"},
	kindHuggingFaceToken:  {"huggingface_token", "a Hugging Face token"},
	kindAIServiceKey:      {"ai_service_key", "an API key of a model provider"},
	kindGoogleAPIKey:      {"google_api_key", "a Google API key"},
	kindGoogleOAuthToken:  {"google_oauth", "a Google OAuth token or client secret"},
	kindAzureStorageKey:   {"azure_storage_key", "an Azure storage or service bus key"},
	kindAzureSAS:          {"azure_sas", "an Azure shared access signature"},
	kindAzureClientSecret: {"azure_client_secret", "a Microsoft Entra client secret"},
	kindGitHubToken:       {"github_token", "a GitHub token"},
	kindGitLabToken:       {"gitlab_token", "a GitLab token"},
	kindNPMToken:          {"npm_token", "an npm token"},
	kindPyPIToken:         {"pypi_token", "a PyPI token"},
	kindPackageToken:      {"package_token", "a token of a package registry"},
	kindSlackToken:        {"slack_token", "a Slack token"},
	kindTelegramToken:     {"telegram_token", "a Telegram bot token"},
	kindWebhookURL:        {"webhook_url", "a webhook URL, which is a secret"},
	kindStripeKey:         {"stripe_key", "a Stripe key"},
	kindPaymentKey:        {"payment_key", "a key of a payment service"},
	kindTwilioKey:         {"twilio_key", "a Twilio API key"},
	kindSendGridKey:       {"sendgrid_key", "a SendGrid API key"},
	kindDigitalOceanToken: {"digitalocean_token", "a DigitalOcean token"},
	kindShopifyToken:      {"shopify_token", "a Shopify token"},
	kindDatabricksToken:   {"databricks_token", "a Databricks token"},
	kindVaultToken:        {"vault_token", "a token of HashiCorp's Vault or Terraform"},
	kindAtlassianToken:    {"atlassian_token", "an Atlassian token"},
	kindDockerToken:       {"docker_token", "a Docker token"},
	kindGrafanaToken:      {"grafana_token", "a Grafana token"},
	kindServiceToken:      {"service_token", "an access token of a known service"},
	kindJWT:               {"jwt", "a JSON web token"},
	kindBearer:            {"bearer", "a bearer token"},
	kindBasicAuth:         {"basic_auth", "a user and password (basic authentication)"},
	kindURLCredentials:    {"url_credentials", "a URL with a password"},
	kindPrivateKey:        {"private_key", "a private key"},
	kindSSHPrivateKey:     {"ssh_private_key", "an SSH private key"},
	kindPGPPrivateKey:     {"pgp_private_key", "a PGP private key"},
	kindAgeKey:            {"age_key", "an age private key"},
	kindOTPSecret:         {"otp_secret", "a secret of one-time passwords"},
	kindPassword:          {"password", "a password"},
	kindSecret:            {"secret", "something labelled as a secret"},
	kindHighEntropy:       {"high_entropy", "a long random string, as keys are"},
}

// A mark is how a key, or what announces one, begins. It stands at the start of a word
// and is compared in any case, since a value may have been folded on its way.
type screenMark struct {
	begin    string // in lower case, but of asWritten and exactlyThat
	kind     findingKind
	rule     markRule
	alphabet uint16 // of what follows
	least    int    // how much must follow
}

// A markRule says what must follow a mark.
type markRule uint8

const (
	mixedTail      markRule = iota // characters of the alphabet, drawn by lot: not a name made of words
	looseTail                      // characters of the alphabet, among them a digit, or both cases
	plainTail                      // characters of the alphabet
	asWritten                      // mixedTail, both cases, and the mark as written
	exactlyThat                    // mixedTail, no more than that, and the mark in capitals as written
	lettered                       // 20 letters and digits in a row, or both cases and digits: sk-...
	awsKeyID                       // 16 more, and no more
	slackText                      // digits and hyphens, then the secret
	jwtParts                       // two more parts behind dots
	gatewayKey                     // wbk_ID_SECRET
	airtable                       // patXXXXXXXXXXXXXX.HEX
	basicPair                      // user:password in base64
	bearerToken                    // a token that is no word
	armour                         // -----BEGIN ... PRIVATE KEY
	otpURI                         // with secret=
	telephone                      // digits
	nationalNumber                 // a national number of the kind
	birthDate                      // a date of the kind
)

var (
	screenMarks = sortedMarks()
	markIndex   = indexMarks(screenMarks)
)

// markHash is the same for all cases of two characters.
func markHash(a, b byte) int { return int(a&31)<<5 | int(b&31) }

func sortedMarks() []screenMark {
	var all []screenMark
	for _, m := range []screenMark{ // alternatives are divided by |
		{"wbk_", kindWaybillKey, gatewayKey, chWord, 20},
		{"akia|asia|abia|acca", kindAWSAccessKey, awsKeyID, 0, 16},
		{"IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz", kindAWSSessionToken, asWritten, chBase64, 60},
		{"bedrock-api-key-", kindBedrockAPIKey, mixedTail, chOpaque, 16},
		{"absk", kindBedrockAPIKey, mixedTail, chBase64, 40},

		{"sk-ant-", kindAnthropicKey, mixedTail, chWord, 32},
		{"sk-proj-|sk-svcacct-|sk-admin-", kindOpenAIKey, mixedTail, chWord, 32},
		{"sk-or-v1-|lsv2_pt_|lsv2_sk_", kindAIServiceKey, mixedTail, chAnyHex, 32},
		{"sk-lf-", kindAIServiceKey, mixedTail, chHexDash, 36},
		{"sk-", kindOpenAIKey, lettered, chWord, 20},
		{"sess-", kindOpenAIKey, mixedTail, chAlnum, 40},
		{"hf_|api_org_", kindHuggingFaceToken, mixedTail, chAlnum, 30},
		{"gsk_|pplx-", kindAIServiceKey, mixedTail, chAlnum, 40},
		{"xai-", kindAIServiceKey, mixedTail, chAlnum, 60},
		{"r8_", kindAIServiceKey, mixedTail, chAlnum, 30},
		{"nvapi-|jina_", kindAIServiceKey, mixedTail, chWord, 50},
		{"pcsk_", kindAIServiceKey, mixedTail, chWord, 40},
		{"tvly-", kindAIServiceKey, mixedTail, chWord, 28},

		{"aiza", kindGoogleAPIKey, mixedTail, chWord, 35},
		{"ya29.|gocspx-", kindGoogleOAuthToken, mixedTail, chWord, 20},
		{"1//0", kindGoogleOAuthToken, mixedTail, chWord, 30},

		{"ghp_|gho_|ghu_|ghs_|ghr_", kindGitHubToken, mixedTail, chAlnum, 30},
		{"github_pat_", kindGitHubToken, mixedTail, chWord, 40},
		{"glpat-|gldt-|glrt-|glcbt-|glft-|glsoat-|glffct-|gr1348941", kindGitLabToken, mixedTail, chWord, 20},
		{"glptt-", kindGitLabToken, mixedTail, chAnyHex, 40},
		{"glimt-", kindGitLabToken, mixedTail, chWord, 25},
		{"glagent-|gloas-", kindGitLabToken, mixedTail, chWord, 40},
		{"npm_", kindNPMToken, mixedTail, chAlnum, 30},
		{"pypi-age", kindPyPIToken, mixedTail, chWord, 16},
		{"rubygems_", kindPackageToken, mixedTail, chAnyHex, 40},
		{"clojars_", kindPackageToken, mixedTail, chAlnum, 50},
		{"oy2", kindPackageToken, mixedTail, chAlnum, 43},
		{"akcp", kindPackageToken, mixedTail, chAlnum, 60},
		{"cmvmd", kindPackageToken, mixedTail, chAlnum, 59},

		{"xoxb-|xoxp-|xoxa-|xoxr-|xoxs-|xoxo-|xoxc-|xoxe-|xapp-", kindSlackToken, slackText, chWord, 16},
		{"xoxa-|xoxr-", kindSlackToken, mixedTail, chAlnum, 12},
		{"xoxd-", kindSlackToken, mixedTail, chOpaque | chPercent, 24},
		{"hooks.slack.com/|discord.com/api/webhooks/|discordapp.com/api/webhooks/", kindWebhookURL, looseTail, chWord | chSlash, 30},
		{"webhook.office.com/webhookb2/", kindWebhookURL, looseTail, chWord, 30},

		{"sk_live_|sk_test_|rk_live_|rk_test_|sk_prod_|rk_prod_", kindStripeKey, mixedTail, chAlnum, 10},
		{"whsec_", kindStripeKey, mixedTail, chBase64, 20},
		{"sq0atp-|sq0csp-", kindPaymentKey, mixedTail, chWord, 20},
		{"EAA", kindServiceToken, asWritten, chWord, 57},
		{"EAAA", kindPaymentKey, asWritten, chWord, 22},
		{"flwseck-|flwseck_test-", kindPaymentKey, mixedTail, chWord, 12},
		{"shippo_live_|shippo_test_", kindServiceToken, mixedTail, chAnyHex, 40},
		{"duffel_live_|duffel_test_", kindPaymentKey, mixedTail, chWord, 40},
		{"ezak|eztk", kindServiceToken, mixedTail, chAlnum, 54},

		{"SK", kindTwilioKey, exactlyThat, chAnyHex, 32},
		{"sg.", kindSendGridKey, mixedTail, chDotted, 40},
		{"xkeysib-|xsmtpsib-", kindServiceToken, mixedTail, chAnyHex, 64},
		{"dop_v1_|doo_v1_|dor_v1_", kindDigitalOceanToken, mixedTail, chAnyHex, 40},
		{"shpat_|shpca_|shppa_|shpss_", kindShopifyToken, mixedTail, chAnyHex, 32},
		{"dapi", kindDatabricksToken, mixedTail, chAnyHex, 32},
		{"hvs.|hvb.|hvr.", kindVaultToken, mixedTail, chWord, 24},
		{"atlasv1.", kindVaultToken, mixedTail, chWord, 50},
		{"atatt3|atctt3", kindAtlassianToken, mixedTail, chWord, 60},
		{"atbb", kindAtlassianToken, mixedTail, chAlnum, 28},
		{"dckr_pat_|dckr_oat_", kindDockerToken, mixedTail, chWord, 20},
		{"swmtkn-1-", kindDockerToken, mixedTail, chWord, 50},
		{"glc_", kindGrafanaToken, mixedTail, chBase64, 32},
		{"glsa_", kindGrafanaToken, mixedTail, chAlnum, 32},

		{"dp.pt.|dp.ct.|dp.sa.|ntn_", kindServiceToken, mixedTail, chAlnum, 40},
		{"dp.st.|tfp_", kindServiceToken, mixedTail, chDotted, 40},
		{"dt0c01.", kindServiceToken, mixedTail, chDotted, 60},
		{"lin_api_|lin_oauth_|nfp_|pnu_|ico-|akid|p8e-", kindServiceToken, mixedTail, chAlnum, 32},
		{"secret_", kindServiceToken, mixedTail, chAlnum, 43},
		{"figd_", kindServiceToken, mixedTail, chWord, 36},
		{"rdme_", kindServiceToken, mixedTail, chAlnum, 60},
		{"sntrys_", kindServiceToken, mixedTail, chOpaque, 40},
		{"sntryu_|sqp_|squ_|sqa_|bkua_|pul-|sbp_", kindServiceToken, mixedTail, chAnyHex, 40},
		{"sgp_|pmak-", kindServiceToken, mixedTail, chHexDash, 40},
		{"tskey-", kindServiceToken, mixedTail, chWord, 24},
		{"ccipat_|fo1_|cfpat-", kindServiceToken, mixedTail, chWord, 40},
		{"nrak-", kindServiceToken, mixedTail, chAlnum, 26},
		{"hrku-", kindServiceToken, mixedTail, chWord, 32},
		{"pscale_tkn_|pscale_oauth_|pscale_pw_", kindServiceToken, mixedTail, chDotted | chAssign, 32},
		{"fm1a_|fm1r_|fm2_|ops_eyj", kindServiceToken, mixedTail, chBase64, 60},
		{"fio-u-", kindServiceToken, mixedTail, chWord, 50},
		{"sb_secret_", kindServiceToken, mixedTail, chWord, 20},
		{"pat.|sat.", kindServiceToken, mixedTail, chDotted, 64},
		{"s-s4t2ud-|s-s4t2af-", kindServiceToken, mixedTail, chAnyHex, 64},
		{"pat", kindServiceToken, airtable, chAnyHex, 40},
		{"ltai|sm_aat_|sm_pat_|sm_sat_", kindServiceToken, mixedTail, chAlnum, 16},
		{"tk-us-", kindServiceToken, mixedTail, chWord, 48},
		{"API-", kindServiceToken, exactlyThat, chAlnum, 26},
		{"A3-", kindServiceToken, exactlyThat, chWord, 36},
		{"A3-", kindServiceToken, exactlyThat, chWord, 37},
		{"sha256~", kindServiceToken, mixedTail, chWord, 43},
		{"v1.0-", kindServiceToken, mixedTail, chHexDash, 120},
		{"sl.", kindServiceToken, mixedTail, chWord, 100},

		{"eyJrIjoi", kindGrafanaToken, asWritten, chBase64, 60},
		{"ZXlK", kindJWT, asWritten, chBase64, 40}, // in base64 once more
		{"eyj", kindJWT, jwtParts, chWord, 16},
		{"bearer ", kindBearer, bearerToken, chDotted | chBase64, 16},
		{"basic ", kindBasicAuth, basicPair, chOpaque, 8},
		{"begin ", kindPrivateKey, armour, 0, 0},
		{"ls0tls1crudjti", kindPrivateKey, mixedTail, chBase64, 20},
		{"b3blbnnzac1rzxktdje", kindSSHPrivateKey, plainTail, chBase64, 16},
		{"putty-user-key-file-", kindSSHPrivateKey, plainTail, chDigit, 1},
		{"age-secret-key-1", kindAgeKey, plainTail, chAlnum, 40},
		{"otpauth://", kindOTPSecret, otpURI, 0, 0},

		{"tel:|sms:", kindPhone, telephone, 0, 0},
		{"ssn", kindUSSSN, nationalNumber, 0, 9},
		{"itin", kindUSITIN, nationalNumber, 0, 9},
		{"sin", kindCASIN, nationalNumber, 0, 9},
		{"bsn", kindNLBSN, nationalNumber, 0, 9},
		{"cpf", kindBRCPF, nationalNumber, 0, 11},
		{"nhs", kindUKNHS, nationalNumber, 0, 10},
		{"pesel", kindPLPESEL, nationalNumber, 0, 11},
		{"aadhaar|aadhar", kindINAadhaar, nationalNumber, 0, 12},
		{"steuer-id|steuerid|steuer-idnr|idnr", kindDESteuerID, nationalNumber, 0, 11},
		{"personnummer", kindSEPersonnummer, nationalNumber, 0, 10},
		{"fodselsnummer", kindNOFodselsnummer, nationalNumber, 0, 11},
		{"cpr", kindDKCPR, nationalNumber, 0, 10},
		{"insee|nir", kindFRNIR, nationalNumber, 0, 15},
		{"dob|birthday|birthdate|birth_date|birth-date|date of birth|date_of_birth|date-of-birth|geburtsdatum", kindBirthDate, birthDate, 0, 0},
	} {
		for begin := range strings.SplitSeq(m.begin, "|") {
			m.begin = begin
			all = append(all, m)
		}
	}
	// The longest first: sk-ant- says more than sk-.
	slices.SortStableFunc(all, func(a, b screenMark) int {
		if d := markHash(a.begin[0], a.begin[1]) - markHash(b.begin[0], b.begin[1]); d != 0 {
			return d
		}
		return len(b.begin) - len(a.begin)
	})
	return all
}

// indexMarks is where the marks of each hash begin in the list, and one more; 0 for none.
func indexMarks(screenMarks []screenMark) (index [1 << 10]uint16) {
	for i, m := range slices.Backward(screenMarks) {
		index[markHash(m.begin[0], m.begin[1])] = uint16(i + 1)
	}
	return index
}

// matchMarks tries the marks whose hash is that of the word at i. The first is marks[at].
// Each looks at a bounded piece of the value, so that many marks cost no more than their
// number; the exception keeps in barren how far it has looked in vain.
func matchMarks(v string, i, at int, barren *int) findingKind {
	hash := markHash(v[i], v[i+1])
	for ; at < len(screenMarks); at++ {
		m := &screenMarks[at]
		if markHash(m.begin[0], m.begin[1]) != hash {
			break
		}
		if m.rule == exactlyThat || m.rule == asWritten {
			if !strings.HasPrefix(v[i:], m.begin) {
				continue
			}
		} else if !hasFold(v, i, m.begin) {
			continue
		}
		if k := m.check(v, i, i+len(m.begin), barren); k != kindNone {
			return k
		}
	}
	return kindNone
}

// check judges what follows a mark that begins at start and ends at i.
func (m *screenMark) check(v string, start, i int, barren *int) findingKind {
	good := false
	switch m.rule {
	case mixedTail, looseTail, plainTail, asWritten, exactlyThat, bearerToken, lettered, slackText:
		end := i + m.least
		if end > len(v) || runEnd(v[:end], i, m.alphabet) < end {
			return kindNone
		}
		// The more there is of it, the surer it is.
		switch tail := v[i:runEnd(v[:min(len(v), max(end, i+40))], i, m.alphabet)]; m.rule {
		case plainTail:
			good = true
		case looseTail:
			good = hasMixture(tail)
		case mixedTail:
			good = m.byLot(tail)
		case asWritten:
			seen := seenIn(tail)
			good = m.byLot(tail) && seen&chLower != 0 && seen&chUpper != 0
		case exactlyThat:
			good = m.byLot(tail) && !byteIs(v, end, chAlnum) && (m.begin[0] == 'S' || seenIn(tail)&chLower == 0)
		case bearerToken:
			good = drawnByLot(v[i:runEnd(v[:min(len(v), i+128)], i, m.alphabet)])
		case lettered:
			run := tail[:runEnd(tail, 0, chAlnum)]
			seen := seenIn(tail)
			good = len(run) >= 20 && m.byLot(run) || seen&chDigit != 0 && seen&chLower != 0 && seen&chUpper != 0
		case slackText:
			good = byteClasses[tail[0]]&chDigit != 0
		}
	case awsKeyID:
		good = awsKeyAt(v, start)
	case jwtParts:
		if start >= *barren {
			end := runEnd(v, i, chWord)
			good = end-start >= m.least && byteIs(v, end, chDot) && runEnd(v, end+1, chWord) >= end+9
			if !good {
				*barren = end
			}
		}
	case gatewayKey:
		end := runEnd(v[:min(len(v), i+40)], i, chAlnum)
		good = end > i+3 && end < len(v) && v[end] == '_' && tokenValue(v, end+1, m.alphabet, m.least, m.kind) != kindNone
	case airtable:
		end := runEnd(v[:min(len(v), i+15)], i, chAlnum)
		good = end == i+14 && byteIs(v, end, chDot) && tokenValue(v, end+1, m.alphabet, m.least, m.kind) != kindNone
	case basicPair:
		end := runEnd(v[:min(len(v), i+256)], i, m.alphabet)
		good = end-i >= m.least && textInBase64(v[i:end-(end-i)%4]) && colonInBase64(v[i:end])
	case armour:
		return armourAt(v, start, i)
	case otpURI:
		good = strings.Contains(strings.ToLower(v[i:min(len(v), i+512)]), "secret=")
	case telephone:
		good = labelledNumber(v, i)
	case nationalNumber:
		return m.numberAt(v, i)
	case birthDate:
		good = birthDateAt(v, i)
	}
	if good {
		return m.kind
	}
	return kindNone
}

func seenIn(s string) (seen uint16) {
	for i := range len(s) {
		seen |= byteClasses[s[i]]
	}
	return seen
}

// byLot reports whether a tail is one of a key rather than of a name that happens to begin
// like one (glpat-rotation-service, hf_requiredCharacteristicTypes) or of an example
// (ghp_xxxxxxxx).
func (m *screenMark) byLot(tail string) bool {
	percent := 30
	if len(tail) < 30 { // a short one may look like a word by chance
		percent = 25
	}
	return hasMixture(tail) && !fewLetters(tail) && (len(tail) < 20 || m.alphabet&chLetter == 0 || atOdds(tail, percent))
}

// fewLetters reports whether a text has four different characters at most.
func fewLetters(s string) bool {
	var there [2]uint64
	n := 0
	for i := range len(s) {
		if c := s[i] & 0x7f; there[c>>6]&(1<<(c&63)) == 0 {
			there[c>>6] |= 1 << (c & 63)
			n++
		}
	}
	return n <= 4
}

// hasMixture reports whether there is a digit, or both cases of letters.
func hasMixture(s string) bool {
	seen := seenIn(s)
	return seen&chDigit != 0 || seen&chLower != 0 && seen&chUpper != 0
}

// awsKeyAt reports whether the word at i is an AWS access key id: four letters that say
// its sort and 16 of base32 (AWS's own examples have an 8, too). Words begin like that as
// well: what begins with ASIA and has no digit must go on as the ids do, whose fifth
// letter is I, J or from the second half of the alphabet; what is in lower case must look
// drawn by lot. Principal ids (AROA..., AIDA...) are no secret.
func awsKeyAt(v string, i int) bool {
	if runEnd(v[:min(len(v), i+21)], i, chAlnum) != i+20 {
		return false
	}
	tail := v[i+4 : i+20]
	if fewLetters(tail) {
		return false
	}
	seen := seenIn(v[i : i+20])
	switch seen & chLetter {
	case chUpper:
		fifth := tail[0]
		return seen&chDigit != 0 || v[i+1] == 'K' || fifth == 'I' || fifth == 'J' || fifth >= 'Q'
	case chLower:
		return !strings.ContainsAny(tail, "0189") && atOdds(tail, 50)
	}
	return false
}

// colonInBase64 reports whether what is encoded has a colon, as user:password has. A
// colon is 0x3a: at any of the three places of a group it leaves its trace.
func colonInBase64(s string) bool {
	var bits uint32
	n := 0
	for i := range len(s) {
		bits = bits<<6 | uint32(sixBits(s[i]))
		if n += 6; n >= 8 {
			n -= 8
			if byte(bits>>n) == ':' {
				return true
			}
		}
	}
	return false
}

// armourAt finds what stands between the dashes of -----BEGIN ... PRIVATE KEY-----.
// Public keys and certificates are no secret.
func armourAt(v string, start, i int) findingKind {
	dash := start
	if dash > 0 && v[dash-1] == ' ' {
		dash--
	}
	if dash < 2 || v[dash-1] != '-' || v[dash-2] != '-' {
		return kindNone
	}
	head := v[i:min(len(v), i+48)]
	for at := 0; at < len(head); at++ {
		switch {
		case hasFold(head, 0, "pgp") && hasFold(head, at, "private key"):
			return kindPGPPrivateKey
		case !hasFold(head, at, "private key"):
		case hasFold(head, 0, "openssh"), hasFold(head, 0, "ssh2"):
			return kindSSHPrivateKey
		default:
			return kindPrivateKey
		}
	}
	return kindNone
}

// numberAt finds a national number behind its label, where digits that mean nothing
// elsewhere mean a person: ssn=..., BSN: ..., CPF no. ...
func (m *screenMark) numberAt(v string, i int) findingKind {
	if byteIs(v, i, chLetter) {
		return kindNone
	}
	for n := 0; n < 12 && i < len(v); n++ { // blanks and "no."
		if byteClasses[v[i]]&(chBlank|chAssign|chUnderDash|chDot) == 0 && strings.IndexByte("#\"'", v[i]) < 0 && !hasFold(v, i, "no") && !hasFold(v, i-1, "no") && !hasFold(v, i, "nr") && !hasFold(v, i-1, "nr") {
			break
		}
		i++
	}
	var d [15]byte
	n := 0
	for ; i < len(v) && n < m.least; i++ {
		switch {
		case byteClasses[v[i]]&chDigit != 0:
			d[n] = v[i] - '0'
			n++
		case n == 0 || strings.IndexByte(" .-/", v[i]) < 0 || !byteIs(v, i+1, chDigit):
			return kindNone
		}
	}
	if n < m.least || byteIs(v, i, chAlnum) {
		return kindNone
	}
	good := false
	switch m.kind {
	case kindUSSSN:
		good = ssnArea(d[:])
	case kindUSITIN:
		good = itin(d[:])
	case kindCASIN:
		good = d[0] != 0 && d[0] != 8 && luhn(d[:n])
	case kindNLBSN:
		good = bsn(d[:n])
	case kindBRCPF:
		good = cpf(d[:n])
	case kindUKNHS:
		good = nhs(d[:n])
	case kindPLPESEL:
		good = pesel(d[:n])
	case kindINAadhaar:
		good = verhoeff(d[:n])
	case kindDESteuerID:
		good = steuerID(d[:n])
	case kindSEPersonnummer:
		good = luhn(d[:n]) && monthAndDay(decimalOf(d[2:4]), decimalOf(d[4:6])%60)
	case kindNOFodselsnummer:
		good = fodselsnummer(d[:n])
	case kindDKCPR:
		good = monthAndDay(decimalOf(d[2:4]), decimalOf(d[:2]))
	case kindFRNIR:
		good = nir(decimalOf(d[:13]), decimalOf(d[13:15])) && d[0] >= 1 && d[0] <= 2
	}
	if good {
		return m.kind
	}
	return kindNone
}

// pairTable is a set of pairs of letters, from words that give the second letters of each
// first one.
func pairTable(seconds [26]string) (t [26]uint32) {
	for i, letters := range seconds {
		for j := range len(letters) {
			t[i] |= 1 << (letters[j] - 'a')
		}
	}
	return t
}

// englishPairs are the pairs of letters that make up 96 of a hundred in the comments of
// Go's own sources, which are English about computers. Of two letters drawn by lot six
// in ten are no such pair.
var englishPairs = pairTable([26]string{
	"bcdgiklmnprstuvy", "aeilosuy", "acehiklortu", "adeilorsu", "acdeflmnpqrstvwxy", "aefiloru", "ehinor",
	"aeiot", "abcdefglmnoprstvz", "aeou", "aei", "adeilostuy", "abeimopu", "acdefgilnostuvy",
	"bcdefiklmnoprstuvw", "aeiloprstuy", "u", "acdefgimnorstuvy", "acdehiopstuy", "acehiloprstuy", "ceilmnprst",
	"aei", "aehior", "pt", "lprst", "e",
})

// countryDomains are the top-level domains of countries. What else has two letters (main.go,
// 2.0.rc) is the end of a file's name or a version.
var countryDomains = pairTable([26]string{
	"cdefgilmoqrstuwxz", "abdefghijmnorstwyz", "acdfghiklmnoruvwxyz", "ejkmoz", "cegrstu", "ijkmor", "adefghilmnpqrstuwy",
	"kmnrtu", "delmnoqrst", "emop", "eghimnprwyz", "abcikrstuvy", "acdeghklmnopqrstuvwxyz", "acefgilopruz",
	"m", "aefghklmnrstwy", "a", "eosuw", "abcdeghiklmnorstuvxyz", "cdfghjklmnortvwz", "agksyz",
	"aceginu", "fs", "", "et", "amw",
})
